//! A rolling restart of everything, behind a balancer that asks who is ready, as Kubernetes does.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use testkit::{Cluster, Env, SERVICES, order, wait_until};
use uuid::Uuid;

use crate::stand::{SOON, assert_clean};

const CLIENTS: usize = 6;
/// Between two requests of a client: a load that two cores bear with room to spare.
const PACE: Duration = Duration::from_millis(100);
/// Between two looks of the balancer; a service that stops goes on answering for longer.
const LOOK: Duration = Duration::from_millis(100);
const DELAY_MS: u32 = 1_500;
/// What is asked of each service beside orders.
const QUESTIONS: &[(&str, &str)] = &[
    ("order-api", "/api/orders?limit=1"),
    ("orchestrator", "/api/sagas?limit=1"),
    ("payment-svc", "/api/payments/ledger"),
    ("inventory-svc", "/api/stock/SKU-001"),
    ("dlq-admin", "/api/dlq/groups"),
];

/// Who is ready of each service.
struct Balancer<'c> {
    cluster: &'c Cluster<'c>,
    ready: Mutex<Vec<(&'static str, String)>>,
    turn: AtomicUsize,
}

impl<'c> Balancer<'c> {
    fn new(cluster: &'c Cluster<'c>) -> Self {
        Self { cluster, ready: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    async fn look(&self) {
        let mut asked = Vec::new();
        for (service, _) in SERVICES {
            let running = self.cluster.instances(service).iter().filter(|process| process.is_ready());
            asked.extend(running.map(|process| (*service, process.url())));
        }
        let client = self.cluster.client();
        let answers = asked.into_iter().map(|(service, url)| async move {
            let answer = client.get(format!("{url}/readyz")).send().await;
            answer.is_ok_and(|answer| answer.status().is_success()).then_some((service, url))
        });
        let ready = join_all(answers).await.into_iter().flatten().collect();
        *self.ready.lock().unwrap_or_else(PoisonError::into_inner) = ready;
    }

    fn count(&self, service: &str) -> usize {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).iter().filter(|(name, _)| *name == service).count()
    }

    /// The next instance's turn.
    fn choose(&self, service: &str) -> Option<String> {
        let ready = self.ready.lock().unwrap_or_else(PoisonError::into_inner);
        let of: Vec<_> = ready.iter().filter(|(name, _)| *name == service).collect();
        of.get(self.turn.fetch_add(1, Ordering::Relaxed) % of.len().max(1)).map(|(_, url)| url.clone())
    }
}

/// What a client was answered.
#[derive(Default)]
struct Answered {
    orders: Vec<Uuid>,
    questions: usize,
    failed: Vec<String>,
}

async fn client(balancer: &Balancer<'_>, number: usize, stop: &AtomicBool) -> Answered {
    let (mut answered, http) = (Answered::default(), balancer.cluster.client());
    let mut pace = tokio::time::interval(PACE);
    while !stop.load(Ordering::Relaxed) {
        pace.tick().await;
        let placed = match balancer.choose("order-api") {
            None => Err("nobody is ready".to_owned()),
            Some(url) => match http.post(format!("{url}/api/orders")).json(&order()).send().await {
                Err(error) => Err(format!("{error:?}")),
                Ok(answer) if answer.status() == 202 => answer.json::<Value>().await.map_err(|error| error.to_string()),
                Ok(answer) => Err(answer.status().to_string()),
            },
        };
        match placed.map(|body| body["orderId"].as_str().and_then(|id| id.parse().ok())) {
            Ok(Some(id)) => answered.orders.push(id),
            Ok(None) => answered.failed.push("a 202 without an orderId".to_owned()),
            Err(error) => answered.failed.push(format!("POST /api/orders: {error}")),
        }
        let (service, path) = QUESTIONS[(number + answered.questions) % QUESTIONS.len()];
        let answer = match balancer.choose(service) {
            None => Err("nobody is ready".to_owned()),
            Some(url) => match http.get(format!("{url}{path}")).send().await {
                Err(error) => Err(format!("{error:?}")),
                Ok(answer) if answer.status().is_success() => Ok(()),
                Ok(answer) => Err(answer.status().to_string()),
            },
        };
        answered.questions += 1;
        answered.failed.extend(answer.err().map(|error| format!("GET {path} of {service}: {error}")));
    }
    answered
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rolling_restart_of_every_service_fails_no_request_and_loses_no_order() {
    let env = Env::new("rolling").await;
    let mut cluster = env.cluster().set_all("SHUTDOWN_DELAY_MS", DELAY_MS);
    for (service, _) in SERVICES {
        cluster = cluster.instances(service, 2);
    }
    let cluster = cluster.start().await;
    let (balancer, stop) = (Balancer::new(&cluster), AtomicBool::new(false));
    balancer.look().await;

    let looking = async {
        while !stop.load(Ordering::Relaxed) {
            balancer.look().await;
            // How often a balancer looks, not a wait for something.
            tokio::time::sleep(LOOK).await;
        }
    };
    let rolling = async {
        let mut restarted = 0;
        for number in 0..2 {
            let both = || SERVICES.iter().all(|(service, _)| balancer.count(service) == 2);
            wait_until("two of each to be ready", SOON, async || both()).await;
            let pids: Vec<_> = SERVICES.iter().map(|(service, _)| cluster.instances(service)[number].pid()).collect();
            join_all(SERVICES.iter().map(|(service, _)| cluster.instances(service)[number].restart())).await;
            let now = SERVICES.iter().map(|(service, _)| cluster.instances(service)[number].pid());
            restarted += now.zip(pids).filter(|(now, before)| now != before).count();
        }
        stop.store(true, Ordering::Relaxed);
        restarted
    };
    let clients = join_all((0..CLIENTS).map(|number| client(&balancer, number, &stop)));
    let (restarted, answers, ()) = tokio::join!(rolling, clients, looking);

    assert_eq!(restarted, 2 * SERVICES.len());
    let orders: Vec<Uuid> = answers.iter().flat_map(|answered| answered.orders.clone()).collect();
    let questions: usize = answers.iter().map(|answered| answered.questions).sum();
    let failed: Vec<&String> = answers.iter().flat_map(|answered| &answered.failed).collect();
    eprintln!("{restarted} processes restarted under {} orders and {questions} questions", orders.len());
    assert!(orders.len() >= 50 && questions >= 50, "the load did not run");
    assert!(failed.is_empty(), "{} failed: {failed:#?}", failed.len());
    for id in orders {
        assert_eq!(cluster.ended(id, SOON).await["status"], "COMPLETED", "{id}");
    }
    assert_clean(&env).await;
}
