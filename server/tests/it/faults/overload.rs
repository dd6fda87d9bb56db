//! Far more is offered than a tiny queue takes: each request is done or turned away with a time to come back, the work done
//! stays, and it is over at once.

use std::time::{Duration, Instant};

use scrip_server::bench::Target;
use scrip_server::bench::client::{JSON, request_bytes};
use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use super::load::{Response, check_books, scrip, serve};

const QUEUE: usize = 4;
/// One batch under way and a full queue: nobody is turned away.
const CAPACITY: usize = 2 * QUEUE;
const OFFERED: usize = 5 * CAPACITY;
const WINDOW: Duration = Duration::from_secs(2);
/// A client that is turned away comes back sooner than it is told.
const PAUSE: Duration = Duration::from_millis(20);

#[derive(Default)]
struct Count {
    done: usize,
    turned_away: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_times_the_capacity_is_served_at_capacity_and_the_rest_told_when_to_come_back() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = StoreUrl::Sqlite(folder.path().join("scrip.db"));
    let mut arguments = vec![format!("SCRIP_ENGINE__QUEUE_MAX={QUEUE}"), format!("SCRIP_ENGINE__BATCH_MAX={QUEUE}")];
    arguments.push(scrip());
    arguments.extend(serve(&url));
    let server = ServerProcess::start("env".into(), &arguments).await.expect("the server starts");
    let target = server.target("overload").await.expect("a tenant");
    let at_capacity = offer(&target, CAPACITY, "capacity").await;
    let overloaded = offer(&target, OFFERED, "overload").await;
    assert!(overloaded.turned_away > overloaded.done / 10, "{} turned away", overloaded.turned_away);
    let (most, kept) = (at_capacity.done, overloaded.done);
    assert!(kept * 2 > most, "{kept} done under overload, {most} at capacity");
    println!(
        "{CAPACITY} clients: {most} done in {WINDOW:?}; {OFFERED}: {kept} ({} %), {} turned away",
        kept * 100 / most,
        overloaded.turned_away
    );
    let relieved = offer(&target, 1, "after").await;
    assert_eq!(relieved.turned_away, 0, "a single client is served at once");
    server.stop().await.expect("the server stops");
    let store = Store::open(&StoreOptions::new(url)).await.expect("the store opens");
    let sql = "SELECT count(*) FROM mkt_points_transaction";
    let effects = store.stream(sql, &[], |row| row.int(0)).await.expect("a count")[0];
    assert_eq!(effects as usize, most + kept + relieved.done, "as many effects as acknowledgements");
    check_books(&store).await;
}

/// This many clients ask one thing after the other for a while.
async fn offer(target: &Target, clients: usize, name: &str) -> Count {
    let until = Instant::now() + WINDOW;
    let clients = (0..clients).map(|number| {
        let (target, key) = (target.clone(), format!("{name}-{number}"));
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(target.addr).await.expect("a connection");
            let mut count = Count::default();
            for step in 0.. {
                if Instant::now() > until {
                    break;
                }
                let path = format!("/v1/members/{key}/points/grants");
                let key = format!("{key}-{step}");
                let request = request_bytes(&target, "POST", &path, Some(&key), Some((JSON, r#"{"points":1}"#)));
                stream.write_all(&request).await.expect("a request");
                let answer = Response::read(&mut stream).await.expect("an answer");
                match answer.status {
                    201 => count.done += 1,
                    503 => {
                        let seconds = answer.header("retry-after").and_then(|text| text.parse::<u8>().ok());
                        assert!(seconds.is_some_and(|seconds| (1..=3).contains(&seconds)), "{seconds:?}");
                        count.turned_away += 1;
                        tokio::time::sleep(PAUSE).await;
                    }
                    other => panic!("{other}"),
                }
            }
            count
        })
    });
    let mut all = Count::default();
    for client in clients.collect::<Vec<_>>() {
        let count = client.await.expect("the client ends");
        all.done += count.done;
        all.turned_away += count.turned_away;
    }
    all
}
