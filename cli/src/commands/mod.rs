//! The commands, one file each.

pub mod audit;
mod backup;
mod certify;
mod completions;
pub mod dlq;
mod doctor;
mod down;
mod kill;
pub mod load;
mod logs;
pub mod order;
mod repair;
mod restart;
mod restore;
pub mod sagas;
mod scale;
mod start;
mod status;
mod stop;
mod supervisor;
pub mod test;
pub mod up;

use std::process::ExitCode;

use crate::Context;
use crate::api::Api;

/// What `symphony` can do.
#[derive(clap::Subcommand, Debug)]
pub enum Command {
    /// Start everything and follow it, or leave it running with --detach
    Up(up::Args),
    /// Stop everything
    Down(down::Args),
    /// Show what runs, where, how much memory it takes, and what is not ready
    Status(status::Args),
    /// Show the log of a component
    Logs(logs::Args),
    /// Stop a component; it stays stopped until it is started
    Stop(stop::Args),
    /// Start a component that was stopped
    Start(start::Args),
    /// Stop and start a component
    Restart(restart::Args),
    /// Send a signal to a component; if it dies, it is restarted
    Kill(kill::Args),
    /// Set how many instances of a service run
    Scale(scale::Args),
    /// Check that this machine has what a stack needs
    Doctor(doctor::Args),
    /// Say what is wrong between the outbox and its readers, and mend it
    Repair(repair::Args),
    /// Place one order
    Order(order::Args),
    /// Place many orders and wait for their ends
    Load(load::Args),
    /// List, show and check sagas
    Sagas(sagas::Args),
    /// List, show, repair and send back dead letters
    Dlq(dlq::Args),
    /// Check the invariants I1 to I8 on the running stack
    Audit(audit::Args),
    /// Prove every step of every saga against every fault, on a stack of its own
    Certify(certify::Args),
    /// Copy all databases, at one point, while they run
    Backup(backup::Args),
    /// Go back to a backup, and bring Kafka to the same point
    Restore(restore::Args),
    /// Check this tree: format, lints, rules of the tree, unit and integration tests
    Test(test::Args),
    /// Print completions for a shell
    Completions(completions::Args),
}

impl Command {
    /// Carries the command out.
    pub async fn run(&self, context: &Context) -> anyhow::Result<ExitCode> {
        let api = Api::new(context.data.state_file())?;
        match self {
            Self::Up(args) => up::run(args, context).await,
            Self::Down(args) => down::run(args, context).await,
            Self::Status(args) => status::run(args, context).await,
            Self::Logs(args) => logs::run(args, context).await,
            Self::Stop(args) => stop::run(args, context).await,
            Self::Start(args) => start::run(args, context).await,
            Self::Restart(args) => restart::run(args, context).await,
            Self::Kill(args) => kill::run(args, context).await,
            Self::Scale(args) => scale::run(args, context).await,
            Self::Doctor(args) => doctor::run(args, context).await,
            Self::Repair(args) => repair::run(args, context).await,
            Self::Order(args) => order::run(args, &api, context.json).await,
            Self::Load(args) => load::run(args, &api, context.json).await,
            Self::Sagas(args) => sagas::run(args, &api, context.json).await,
            Self::Dlq(args) => dlq::run(args, &api, context.json).await,
            Self::Audit(args) => audit::run(args, &api, context.json).await,
            Self::Certify(args) => certify::run(args, context).await,
            Self::Backup(args) => backup::run(args, context).await,
            Self::Restore(args) => restore::run(args, context).await,
            Self::Test(args) => test::run(args, context).await,
            Self::Completions(args) => completions::run(args),
        }
    }
}
