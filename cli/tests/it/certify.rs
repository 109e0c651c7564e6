//! `symphony certify`: a narrow run is green, and a participant without its dedupe reddens the cells that it must.

use std::path::{Path, PathBuf};

use symphony_cli::certify::{Fault, Report, Samples, Select, Stand, Verdict, certify};
use testkit::{Cluster, Env, workspace};

use crate::stand::{api, execute, impatient, target};

/// The order saga with two attempts of fifteen seconds, so that a cell in which all of them pass takes seconds.
fn hasty(env: &Env) -> String {
    impatient(env, &[("  deadline: 15s\n  attempts: 4\n", "  deadline: 15s\n  attempts: 2\n")])
}

/// A participant that forgets: an order that is booked again is a second booking.
const FORGETS: &str = "
CREATE TABLE bookings (order_id uuid NOT NULL);
CREATE FUNCTION forget() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    DELETE FROM shipments WHERE order_id = NEW.order_id AND state = 'SCHEDULED';
    RETURN NEW;
END $$;
CREATE FUNCTION book() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS $$
BEGIN
    INSERT INTO bookings VALUES (NEW.order_id);
    RETURN NULL;
END $$;
CREATE TRIGGER forget BEFORE INSERT ON shipments FOR EACH ROW WHEN (NEW.state = 'SCHEDULED') EXECUTE FUNCTION forget();
CREATE TRIGGER book AFTER INSERT ON shipments FOR EACH ROW WHEN (NEW.state = 'SCHEDULED') EXECUTE FUNCTION book();
";

/// What needs no supervisor.
fn by_message() -> Vec<Fault> {
    Fault::ALL.into_iter().filter(|fault| !fault.kills()).collect()
}

async fn run(cluster: &Cluster<'_>, step: &str, faults: Vec<Fault>, samples: &Path, audited: bool) -> Report {
    let stand = Stand { api: api(cluster), target: target(cluster.env()), supervised: None, audited };
    let samples = Samples::read(samples).expect("samples");
    let select = Select { definitions: Vec::new(), steps: vec![step.to_owned()], faults };
    let report = certify(stand, &samples, &select, |line| println!("{line}")).await.expect("a report");
    println!("{report}");
    report
}

fn committed_samples() -> PathBuf {
    workspace::root().join("sagas/certify")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_cell_of_a_step_that_needs_no_kill_is_green_and_without_a_sample_all_are_void() {
    let env = Env::new("certify").await;
    let sagas = hasty(&env);
    let cluster = env.cluster().set_all("CHAOS_ENABLED", "true").set("orchestrator", "SAGAS_DIR", sagas).start().await;
    let report = run(&cluster, "inventory", by_message(), &committed_samples(), true).await;
    assert!(report.certified, "{report}");
    assert_eq!(report.count(Verdict::Green), by_message().len());
    assert!(
        report.cells().all(|cell| cell.proof.len() + usize::from(cell.fault == Fault::FailsBefore) >= 2),
        "{report}"
    );

    // What nobody can start, and what nobody starts again, says nothing.
    let nowhere = env.dir().join("no-samples");
    let unknown = run(&cluster, "inventory", by_message(), &nowhere, false).await;
    assert_eq!((unknown.certified, unknown.count(Verdict::Void)), (false, by_message().len()));
    let kills = vec![Fault::OrchestratorKilled, Fault::ParticipantKilled, Fault::FailsAfterCommit];
    let unsupervised = run(&cluster, "inventory", kills, &committed_samples(), false).await;
    assert_eq!((unsupervised.certified, unsupervised.count(Verdict::Void)), (false, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_participant_without_its_dedupe_reddens_the_cells_in_which_a_command_comes_again() {
    let env = Env::new("forgetful").await;
    let sagas = hasty(&env);
    let cluster = env.cluster().set_all("CHAOS_ENABLED", "true").set("orchestrator", "SAGAS_DIR", sagas).start().await;
    execute(&env, "shipping", FORGETS).await;
    let sample = std::fs::read_to_string(committed_samples().join("order.yaml")).expect("the sample");
    let table = "shipments WHERE order_id = $1 AND state IN ('SCHEDULED', 'CANCELLED')";
    assert!(sample.contains(table));
    let samples = env.dir().join("samples");
    std::fs::create_dir_all(&samples).expect("a folder");
    std::fs::write(samples.join("order.yaml"), sample.replace(table, "bookings WHERE order_id = $1"))
        .expect("a sample");

    let report = run(&cluster, "shipping", by_message(), &samples, false).await;
    let red: Vec<Fault> = report.cells().filter(|cell| cell.verdict == Verdict::Red).map(|cell| cell.fault).collect();
    let again = [Fault::ReplyLost, Fault::DeliveredTwice, Fault::ReplyAfterDeadline];
    assert!(again.iter().all(|fault| red.contains(fault)), "{red:?}: {report}");
    assert!(!report.certified);
    for cell in report.cells().filter(|cell| again.contains(&cell.fault)) {
        assert!(cell.violations.iter().any(|text| text.starts_with("I3: shipping took effect 2 times")), "{report}");
    }
}
