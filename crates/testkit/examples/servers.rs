use stack::{DataDir, ports::Ports, servers};
#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).expect("a directory");
    let data = DataDir::at(std::path::Path::new(&dir))?;
    let running = servers::start_all(&data, Ports::FREE).await?;
    let p = running.endpoints.ports;
    std::fs::write(format!("{dir}/servers.json"), format!(r#"{{"postgres":{},"kafka":{},"connect":{}}}"#, p.postgres, p.kafka, p.connect))?;
    eprintln!("ready {p:?}");
    tokio::signal::ctrl_c().await?;
    running.stop().await;
    Ok(())
}
