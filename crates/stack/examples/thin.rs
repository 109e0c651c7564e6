use std::time::Instant;
#[tokio::main]
async fn main() {
    let dir = stack::DataDir::at(std::path::Path::new(&std::env::args().nth(1).unwrap())).unwrap();
    let t = Instant::now();
    let r = stack::servers::start_all(&dir, stack::ports::Ports::DEFAULT).await;
    match r { Ok(running) => { println!("{:?} {:?}", running.endpoints, t.elapsed());
        let e=&running.endpoints; let repo=stack::Repository::find().unwrap(); let n=stack::provision::Names::default();
        let p = async { use stack::provision::*;
          let (a,b)=tokio::join!(databases::ensure(e,&repo,""), topics::ensure(e,&repo,"")); a?; b?; println!("db+topics {:?}", t.elapsed());
          let fresh=slot::ensure(e,&n).await?; let c=OutboxConnector::load(&repo,e,&n)?; c.apply(fresh).await?; println!("applied {fresh} {:?}", t.elapsed());
          c.until_running().await?; slot::until_active(e,&n,std::time::Duration::from_secs(30)).await?; println!("active {:?}", t.elapsed()); Ok::<_,stack::Error>(()) }.await;
        if let Err(e)=p { println!("{}", e.chain()); }
        tokio::time::sleep(std::time::Duration::from_secs(std::env::args().nth(2).and_then(|s| s.parse().ok()).unwrap_or(5))).await;
        let t = Instant::now(); running.stop().await; println!("stopped {:?}", t.elapsed()); }
        Err(e) => println!("{}", e.chain()) }
}
