//! The servers of `symphony test` need nothing that others have.

use std::net::{Ipv4Addr, TcpListener};

use symphony_cli::commands::test::start_servers;
use testkit::{Env, Servers, order};

use crate::stand::{SOON, place_for_servers};

#[tokio::test(flavor = "multi_thread")]
async fn the_servers_of_the_tests_start_beside_others_with_the_usual_ports_taken() {
    let _place = place_for_servers().await;
    let usual = [8081, 9092, 54_321];
    // One that cannot be taken is taken already.
    let _taken: Vec<_> =
        usual.into_iter().filter_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()).collect();
    // Servers and services of another run beside them, in use.
    let env = Env::new("beside").await;
    let cluster = env.cluster().start().await;

    let folder = tempfile::tempdir().expect("a folder");
    let (running, description) = start_servers(folder.path()).await.expect("servers");
    let ours = Servers::read(&description).expect("their description");
    let others = env.servers();
    for port in [ours.postgres, ours.kafka, ours.connect] {
        assert!(!usual.contains(&port), "{port}");
        assert!(![others.postgres, others.kafka, others.connect].contains(&port), "{port}");
    }
    let topics = messaging::admin::list_topics(&ours.endpoints().kafka()).await.expect("a broker that answers");
    assert!(!topics.keys().any(|topic| topic.starts_with(env.prefix())), "it is another broker: {topics:?}");
    let databases = ours.endpoints().database("postgres", "postgres");
    let mut connection = <sqlx::PgConnection as sqlx::Connection>::connect(&databases).await.expect("a connection");
    let own: bool = sqlx::query_scalar("SELECT NOT EXISTS (SELECT FROM pg_database WHERE starts_with(datname, $1))")
        .bind(env.prefix())
        .fetch_one(&mut connection)
        .await
        .expect("an answer");
    assert!(own, "it is another cluster");
    let connectors = reqwest::get(format!("{}/connectors", ours.endpoints().connect())).await.expect("Connect");
    assert_eq!(connectors.text().await.expect("text"), "[]");

    let id = cluster.place(&order()).await;
    assert_eq!(cluster.ended(id, SOON).await["status"], "COMPLETED", "the others go on");
    running.stop().await;
}
