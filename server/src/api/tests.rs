use std::net::Ipv4Addr;

use super::*;
use crate::cancel;
use crate::store::StoreOptions;
use crate::traces::TraceOptions;

fn app(dir: &std::path::Path) -> Arc<App> {
    let config = Config { data_dir: dir.to_owned(), ..Config::default() };
    let store = Arc::new(Store::open(StoreOptions::new(dir)).unwrap());
    let limits = config.tenant_limits();
    let limits = Watched::open("limits", Vec::new(), move |_| Ok(limits.clone())).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 1));
    let traces = Arc::new(TraceStore::open(TraceOptions::new(dir.join("traces"), None)).unwrap());
    Arc::new(App::new(config, store, traces, &[address], None, Arc::new(limits)))
}

#[tokio::test]
async fn slow_queries_hold_up_neither_pushes_nor_metrics_and_end_when_they_are_given_up() {
    let dir = tempfile::tempdir().unwrap();
    let app = app(dir.path());
    let places = 2 * std::thread::available_parallelism().map_or(1, usize::from);
    let (begun, mut told) = tokio::sync::mpsc::unbounded_channel();
    let slow = |_| {
        let (app, begun) = (Arc::clone(&app), begun.clone());
        let endless = move |_: &App| {
            begun.send(()).expect("the test waits");
            while cancel::check().is_ok() {
                std::thread::sleep(Duration::from_millis(1));
            }
        };
        tokio::spawn(async move { app.compute(endless).await })
    };
    let queries: Vec<_> = (0..3 * places).map(slow).collect();
    for _ in 0..places {
        told.recv().await.expect("as many as may work at a time");
    }
    let decoded = intake::decode(&app, &TenantId::anonymous(), |limits, _| limits.max_samples).await;
    assert_eq!(decoded.unwrap(), Limits::default().max_samples);
    assert_eq!(app.status.run(|| 7).await, 7);
    queries.iter().for_each(tokio::task::JoinHandle::abort);
    assert_eq!(app.compute(|_| 7).await, 7);
}
