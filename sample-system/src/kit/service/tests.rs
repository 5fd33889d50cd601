use std::net::SocketAddr;

use axum::routing::get;
use tokio::net::TcpStream;
use tokio::sync::{mpsc, oneshot};

use super::*;

const PATIENCE: Duration = Duration::from_secs(30);

/// A service on a free port, and where it listens.
async fn service(stop: &Stop) -> (Service, SocketAddr) {
    let environment = BTreeMap::from([("PORT_HTTP".to_owned(), "0".to_owned())]);
    let service = Service::start("catalog", &environment, stop.clone());
    let service = service.await.unwrap();
    let address = match &*lock(&service.0.listeners) {
        Some((http, _)) => http.local_addr().unwrap(),
        None => panic!("not served yet"),
    };
    (service, address)
}

/// A handler that says when it begins and waits to be let go on.
fn slow() -> (Router, mpsc::Receiver<oneshot::Sender<()>>) {
    let (begins, begun) = mpsc::channel(1);
    let handler = move || async move {
        let (go_on, told) = oneshot::channel();
        begins.send(go_on).await.unwrap();
        told.await.unwrap();
        "done"
    };
    (Router::new().route("/slow", get(handler)), begun)
}

async fn ask(address: SocketAddr) -> reqwest::Result<String> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let answer = client.get(format!("http://{address}/slow")).send().await?;
    answer.error_for_status()?.text().await
}

async fn soon<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what).await.expect("in time")
}

#[tokio::test]
async fn a_stop_closes_the_door_finishes_what_is_in_flight_and_then_winds_up() {
    let stop = Stop::by_hand();
    let (service, address) = service(&stop).await;
    let (told, mut winding_up) = oneshot::channel();
    service.spawn("watch", |stop| async move {
        stop.wait().await;
        told.send(()).unwrap();
    });
    let (router, mut begun) = slow();
    let serving = tokio::spawn(service.serve(router, Router::new()));
    let asking = tokio::spawn(ask(address));
    let go_on = soon(begun.recv()).await.unwrap();
    stop.ask();
    soon(async { while TcpStream::connect(address).await.is_ok() {} }).await;
    assert!(!serving.is_finished());
    assert!(winding_up.try_recv().is_err(), "work for requests goes on");
    go_on.send(()).unwrap();
    assert_eq!(soon(asking).await.unwrap().unwrap(), "done");
    soon(serving).await.unwrap().unwrap();
    winding_up.try_recv().unwrap();
}

#[tokio::test]
async fn a_second_stop_cuts_what_is_in_flight_and_says_so() {
    let stop = Stop::by_hand();
    let (service, address) = service(&stop).await;
    let (router, mut begun) = slow();
    let serving = tokio::spawn(service.serve(router, Router::new()));
    let asking = tokio::spawn(ask(address));
    let _held = soon(begun.recv()).await.unwrap();
    stop.ask();
    stop.insist();
    let ended = soon(serving).await.unwrap();
    assert!(matches!(ended, Err(RunError::WorkCut(1))), "{ended:?}");
    asking.abort();
}
