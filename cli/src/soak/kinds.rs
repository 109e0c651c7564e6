//! The catalogue: every kind of fault, what it may run beside, and how soon all must work again.

use std::fmt;
use std::time::Duration;

use stack::supervisor::SERVICES;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Kind {
    /// `kill -9` of a service, or of a server.
    Kill(&'static str),
    /// SIGSTOP of a service for longer than a consumer may be silent, then SIGCONT.
    Freeze,
    /// The connector's task fails and Connect leaves it so.
    ConnectTaskFailed,
    /// The outbox's replication slot is gone.
    SlotDropped,
    /// The topic in which Connect keeps its offsets is gone.
    OffsetsTopicDeleted,
    /// A topic of the saga is gone with all that was on it.
    TopicDeleted,
    /// The network between two parts.
    Link(Link, Toxic),
    /// No space for PostgreSQL.
    DiskFull,
    /// What happens to single messages.
    Message(Message),
    /// Bytes that nobody can understand, on every topic.
    HostileBytes,
    /// The clock of one service jumps an hour ahead, and back.
    ClockStep,
    /// Every service is restarted, one instance after the other, and no request fails.
    RollingRestart,
}

/// The way between two parts that goes through the fault proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Link {
    OrderApiPostgres,
    ServicesPostgres,
    ServicesKafka,
    ConnectKafka,
    ConnectPostgres,
}

/// What is done to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Toxic {
    Latency,
    Reset,
    BlackHole,
}

/// What is done to messages by a record on `chaos.faults`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Message {
    Latency,
    Error,
    Drop,
    DropReply,
    Duplicate,
    Reorder,
    Corrupt,
    PauseConsumer,
    SlowConsumer,
}

/// How a kind may be combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Company {
    /// Nothing else happens meanwhile.
    Alone,
    /// One at a time; something of [`Company::Beside`] may happen meanwhile.
    Main,
    /// Happens meanwhile.
    Beside,
}

/// The servers that are killed, besides the services.
const SERVERS: [&str; 3] = ["kafka", "connect", "postgres"];

impl Link {
    pub(super) const ALL: [Self; 5] = [
        Self::OrderApiPostgres,
        Self::ServicesPostgres,
        Self::ServicesKafka,
        Self::ConnectKafka,
        Self::ConnectPostgres,
    ];

    /// The name of its proxy.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::OrderApiPostgres => "order-api-postgres",
            Self::ServicesPostgres => "services-postgres",
            Self::ServicesKafka => "services-kafka",
            Self::ConnectKafka => "connect-kafka",
            Self::ConnectPostgres => "connect-postgres",
        }
    }
}

impl Toxic {
    const ALL: [Self; 3] = [Self::Latency, Self::Reset, Self::BlackHole];

    fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Reset => "reset",
            Self::BlackHole => "black hole",
        }
    }
}

impl Message {
    const ALL: [Self; 9] = [
        Self::Latency,
        Self::Error,
        Self::Drop,
        Self::DropReply,
        Self::Duplicate,
        Self::Reorder,
        Self::Corrupt,
        Self::PauseConsumer,
        Self::SlowConsumer,
    ];

    fn name(self) -> &'static str {
        match self {
            Self::Latency => "latency",
            Self::Error => "error",
            Self::Drop => "drop-message",
            Self::DropReply => "drop-reply",
            Self::Duplicate => "duplicate",
            Self::Reorder => "reorder",
            Self::Corrupt => "corrupt",
            Self::PauseConsumer => "pause-consumer",
            Self::SlowConsumer => "slow-consumer",
        }
    }
}

impl Kind {
    /// Every kind there is.
    pub(super) fn all() -> Vec<Self> {
        let services = SERVICES.iter().map(|service| service.name);
        let mut all: Vec<Self> = services.chain(SERVERS).map(Self::Kill).collect();
        all.extend([Self::Freeze, Self::ConnectTaskFailed, Self::ClockStep, Self::HostileBytes]);
        all.extend([Self::DiskFull, Self::RollingRestart]);
        all.extend([Self::SlotDropped, Self::OffsetsTopicDeleted, Self::TopicDeleted]);
        all.extend(Link::ALL.iter().flat_map(|link| Toxic::ALL.map(|toxic| Self::Link(*link, toxic))));
        all.extend(Message::ALL.map(Self::Message));
        all
    }

    pub(super) fn company(self) -> Company {
        match self {
            Self::SlotDropped | Self::OffsetsTopicDeleted | Self::TopicDeleted => Company::Alone,
            Self::DiskFull | Self::RollingRestart => Company::Alone,
            Self::Message(_) | Self::HostileBytes | Self::Link(_, Toxic::Latency) => Company::Beside,
            Self::Kill(_) | Self::Freeze | Self::ConnectTaskFailed | Self::ClockStep | Self::Link(..) => Company::Main,
        }
    }

    /// Whether `beside` leaves the recovery from this alone. What slows everything down does not belong beside the loss
    /// of a server, of which the recovery is measured by the first order that gets through.
    pub(super) fn allows(self, beside: Self) -> bool {
        let is_of_server = match self {
            Self::Kill(name) => SERVERS.contains(&name),
            Self::ConnectTaskFailed => true,
            _ => false,
        };
        let slows = matches!(
            beside,
            Self::Link(..) | Self::Message(Message::Latency | Message::PauseConsumer | Message::SlowConsumer)
        );
        self.company() == Company::Main && beside.company() == Company::Beside && !(is_of_server && slows)
    }

    /// How many turns it takes.
    pub(super) fn turns(self) -> u32 {
        match self {
            Self::DiskFull => 2,
            Self::RollingRestart | Self::SlotDropped | Self::OffsetsTopicDeleted | Self::TopicDeleted => 3,
            _ => 1,
        }
    }

    /// How long it may take until all works again; `None` for what takes as long as a repair does.
    pub(super) fn limit(self) -> Option<Duration> {
        let seconds = match self {
            Self::Kill(name) if SERVERS.contains(&name) => 30,
            Self::Kill(_) | Self::Freeze | Self::ClockStep => 15,
            Self::ConnectTaskFailed | Self::Link(..) | Self::DiskFull => 30,
            Self::RollingRestart | Self::Message(_) | Self::HostileBytes => return None,
            Self::SlotDropped | Self::OffsetsTopicDeleted | Self::TopicDeleted => return None,
        };
        Some(Duration::from_secs(seconds))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(name) => write!(f, "kill -9 {name}"),
            Self::Freeze => f.write_str("SIGSTOP of a service"),
            Self::ConnectTaskFailed => f.write_str("connector task FAILED"),
            Self::SlotDropped => f.write_str("replication slot dropped"),
            Self::OffsetsTopicDeleted => f.write_str("offsets topic deleted"),
            Self::TopicDeleted => f.write_str("topic deleted"),
            Self::Link(link, toxic) => write!(f, "{} {}", toxic.name(), link.name()),
            Self::DiskFull => f.write_str("disk full for postgres"),
            Self::Message(message) => write!(f, "message {}", message.name()),
            Self::HostileBytes => f.write_str("hostile bytes"),
            Self::ClockStep => f.write_str("clock step of a service"),
            Self::RollingRestart => f.write_str("rolling restart"),
        }
    }
}

/// A kind that is not drawn, and why.
#[derive(Clone, Debug, serde::Serialize)]
pub(super) struct LeftOut {
    pub(super) kind: String,
    pub(super) why: &'static str,
}

/// The kinds that can be drawn, and those that cannot. `only` chooses by parts of names; what it leaves out is not told.
pub(super) fn split(unavailable: impl Fn(Kind) -> Option<&'static str>, only: &[String]) -> (Vec<Kind>, Vec<LeftOut>) {
    let (mut kinds, mut left_out) = (Vec::new(), Vec::new());
    for kind in Kind::all() {
        let name = kind.to_string();
        if !only.is_empty() && !only.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        match unavailable(kind) {
            None => kinds.push(kind),
            Some(why) => left_out.push(LeftOut { kind: name, why }),
        }
    }
    (kinds, left_out)
}
