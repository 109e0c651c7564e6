//! How the other commands talk to the supervisor: JSON lines over a unix socket in the data directory.
//! One request a connection; `down` is answered by several lines.

use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixStream};

use super::state::State;
use crate::{DataDir, Error};

/// The longest path that a unix socket's address holds.
const LONGEST_ADDRESS: usize = 107;
/// More is no request of ours.
const LONGEST_LINE: usize = 64 * 1024;
/// A command sends its request as soon as it is connected.
const SILENCE: Duration = Duration::from_secs(5);

/// What a command wants.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "lowercase")]
pub enum Request {
    /// The state, with memory measured now.
    Status,
    /// Ends what `name` names and leaves it so.
    Stop {
        /// NAME or NAME/INSTANCE.
        name: String,
    },
    /// Starts what was stopped; answered when it is ready.
    Start {
        /// NAME or NAME/INSTANCE.
        name: String,
    },
    /// Ends and starts; answered when it is ready.
    Restart {
        /// NAME or NAME/INSTANCE.
        name: String,
    },
    /// Sends a signal.
    Kill {
        /// NAME or NAME/INSTANCE.
        name: String,
        /// Signal number.
        signal: i32,
    },
    /// Brings a service to so many instances.
    Scale {
        /// NAME.
        name: String,
        /// 1 or more.
        instances: u32,
    },
    /// Ends everything.
    Down,
}

/// What the supervisor answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "lowercase")]
pub enum Reply {
    /// More follows.
    Progress {
        /// One line for people.
        text: String,
    },
    /// Done.
    Done {
        /// The state afterwards.
        state: Box<State>,
    },
    /// Not done.
    Failed {
        /// Why.
        error: String,
    },
}

/// The supervisor's end.
pub(super) struct Listener {
    listener: UnixListener,
    path: PathBuf,
}

/// One request and the way to answer it.
pub(super) struct Conversation {
    pub(super) request: Request,
    writer: OwnedWriteHalf,
}

impl Listener {
    /// Takes the place of a socket that a dead supervisor left: the caller holds the lock.
    pub(super) fn bind(data: &DataDir) -> Result<Self, Error> {
        let path = path(data);
        let doing = || Error::io(format!("listening on {}", path.display()));
        match std::fs::remove_file(&path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(doing()(error)),
            _ => {}
        }
        let listener = with_short_name(&path, |short| UnixListener::bind(short)).map_err(doing())?;
        // The socket of a user's stack is that user's only.
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).map_err(doing())?;
        Ok(Self { listener, path })
    }

    /// The next connection.
    pub(super) async fn accept(&self) -> std::io::Result<UnixStream> {
        Ok(self.listener.accept().await?.0)
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        // Left behind it would do no harm: nobody answers there.
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Conversation {
    /// Reads the request. `None` when what came is none, or nothing came for long; the reason was answered.
    pub(super) async fn begin(stream: UnixStream) -> Option<Self> {
        let (reader, mut writer) = stream.into_split();
        let mut line = Vec::new();
        let mut reader = tokio::io::AsyncReadExt::take(BufReader::new(reader), LONGEST_LINE as u64);
        let error = match tokio::time::timeout(SILENCE, reader.read_until(b'\n', &mut line)).await {
            Ok(read) => {
                read.ok()?;
                match serde_json::from_slice(&line) {
                    Ok(request) => return Some(Self { request, writer }),
                    Err(error) => format!("not a request: {error}"),
                }
            }
            Err(_) => format!("no request within {} s", SILENCE.as_secs()),
        };
        let _ = send(&mut writer, &Reply::Failed { error }).await;
        None
    }

    /// Sends one line. A client that went away does not stop what it asked for.
    pub(super) async fn say(&mut self, reply: &Reply) {
        let _ = send(&mut self.writer, reply).await;
    }
}

async fn send<T: Serialize>(writer: &mut OwnedWriteHalf, message: &T) -> std::io::Result<()> {
    let mut line = serde_json::to_vec(message)?;
    line.push(b'\n');
    writer.write_all(&line).await
}

/// A command's end of a conversation.
pub struct Client {
    lines: Lines<BufReader<OwnedReadHalf>>,
    _writer: OwnedWriteHalf,
}

impl Client {
    /// Sends a request to the running supervisor. `None` if none runs.
    pub async fn send(data: &DataDir, request: &Request) -> Result<Option<Self>, Error> {
        let path = path(data);
        let doing = || Error::io(format!("talking to the supervisor at {}", path.display()));
        let connect = |short: &Path| std::os::unix::net::UnixStream::connect(short);
        let stream = match with_short_name(&path, connect) {
            Err(error)
                if matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused) =>
            {
                return Ok(None);
            }
            connected => connected.map_err(doing())?,
        };
        stream.set_nonblocking(true).map_err(doing())?;
        let (reader, mut writer) = UnixStream::from_std(stream).map_err(doing())?.into_split();
        send(&mut writer, request).await.map_err(doing())?;
        Ok(Some(Self { lines: BufReader::new(reader).lines(), _writer: writer }))
    }

    /// The next line; `None` when the supervisor has closed.
    pub async fn next(&mut self) -> Result<Option<Reply>, Error> {
        let line = self.lines.next_line().await.map_err(Error::io("listening to the supervisor"))?;
        let reply = line.map(|line| serde_json::from_str(&line)).transpose();
        reply.map_err(|error| Error::Other(format!("the supervisor said something unknown: {error}")))
    }

    /// The last line: the state, or the supervisor's error. `progress` gets those before.
    pub async fn finish(mut self, mut progress: impl FnMut(&str)) -> Result<State, Error> {
        while let Some(reply) = self.next().await? {
            match reply {
                Reply::Progress { text } => progress(&text),
                Reply::Done { state } => return Ok(*state),
                Reply::Failed { error } => return Err(Error::Other(error)),
            }
        }
        Err(Error::Other("the supervisor ended before it had answered".into()))
    }
}

fn path(data: &DataDir) -> PathBuf {
    data.run().join("control.sock")
}

/// Calls `act` with a name of `path` that fits into a socket's address, however deep the folder lies.
fn with_short_name<T>(path: &Path, act: impl FnOnce(&Path) -> std::io::Result<T>) -> std::io::Result<T> {
    if path.as_os_str().as_bytes().len() <= LONGEST_ADDRESS {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(std::io::ErrorKind::InvalidInput.into());
    };
    let folder = std::fs::File::open(folder)?;
    act(&Path::new("/proc/self/fd").join(folder.as_raw_fd().to_string()).join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_request_gets_through_to_a_socket_in_a_deep_folder() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("d".repeat(120))).unwrap();
        data.create().unwrap();
        assert!(Client::send(&data, &Request::Status).await.unwrap().is_none());

        let listener = Listener::bind(&data).unwrap();
        let serve = async {
            let mut conversation = Conversation::begin(listener.accept().await.unwrap()).await.unwrap();
            assert_eq!(conversation.request, Request::Stop { name: "kafka".into() });
            conversation.say(&Reply::Progress { text: "on it".into() }).await;
            conversation.say(&Reply::Failed { error: "no".into() }).await;
        };
        let ask = async {
            let client = Client::send(&data, &Request::Stop { name: "kafka".into() }).await.unwrap().unwrap();
            let mut progress = Vec::new();
            let outcome = client.finish(|text| progress.push(text.to_owned())).await;
            (outcome.unwrap_err().to_string(), progress)
        };
        let ((), (error, progress)) = tokio::join!(serve, ask);
        assert_eq!((error.as_str(), progress), ("no", vec!["on it".to_owned()]));
    }

    #[tokio::test]
    async fn who_connects_and_asks_nothing_is_told_so_and_let_go() {
        let temporary = tempfile::tempdir().unwrap();
        let data = DataDir::at(&temporary.path().join("data")).unwrap();
        data.create().unwrap();
        let listener = Listener::bind(&data).unwrap();
        let mut silent = UnixStream::connect(path(&data)).await.unwrap();
        // The beginning of a request is none.
        silent.write_all(b"{\"op\":").await.unwrap();
        assert!(Conversation::begin(listener.accept().await.unwrap()).await.is_none());
        let mut answer = String::new();
        BufReader::new(silent).read_line(&mut answer).await.unwrap();
        assert!(answer.contains("no request within 5 s"), "{answer}");
    }
}
