//! Clients that begin and do not go on: they are cut off in time, keep no server from stopping, and leave room for others.

use std::time::{Duration, Instant};

use scrip_server::bench::server::ServerProcess;
use scrip_server::store::StoreUrl;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::load::{Client, scrip, serve};

const IDLE: usize = 1_000;
/// A body has 30 seconds to arrive, a first request 10.
const CUT_OFF_WITHIN: Duration = Duration::from_secs(45);
/// `server.drain_seconds` of the test's server.
const DRAIN: Duration = Duration::from_secs(2);
/// Beyond the drain: the notice before it, and a busy machine.
const SLACK: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unfinished_requests_and_idle_connections_hinder_neither_others_nor_the_end() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let setting = format!("SCRIP_SERVER__DRAIN_SECONDS={}", DRAIN.as_secs());
    let mut arguments = vec![setting, scrip()];
    arguments.extend(serve(&StoreUrl::Sqlite(folder.path().join("scrip.db"))));
    let server = ServerProcess::start("env".into(), &arguments).await.expect("the server starts");
    let target = server.target("slow").await.expect("a tenant");
    let mut idle = Vec::new();
    for _ in 0..IDLE {
        idle.push(TcpStream::connect(server.addr).await.expect("a connection"));
    }
    let half_a_head = "POST /v1/batch HTTP/1.1\r\nHost: x\r\n";
    let head =
        format!("Host: x\r\nAuthorization: Bearer {}\r\nContent-Type: application/json\r\n", target.operator_key);
    let half_a_body =
        format!("POST /v1/members/m/points/grants HTTP/1.1\r\n{head}Content-Length: 100\r\n\r\n{{\"points\"");
    let begin = async |text: &str| {
        let mut stream = TcpStream::connect(server.addr).await.expect("a connection");
        stream.write_all(text.as_bytes()).await.expect("half a request");
        stream
    };
    let unfinished = [begin(half_a_head).await, begin(&half_a_body).await, begin("P").await];
    let mut client = Client::new(&[target]);
    for number in 0..20 {
        let body = json!({ "points": 1 });
        let answer = client.post("/v1/members/m/points/grants", &format!("k{number}"), &body).await;
        assert!(matches!(answer, Ok((201, _))), "{answer:?}");
    }
    // Who asks nothing in time is cut off, and half a head is no question; half a body is answered.
    let [head, body, letter] = unfinished;
    for (stream, expected) in [(head, ""), (letter, ""), (idle.remove(0), ""), (body, "HTTP/1.1 408 Request Timeout")] {
        let answer = all_of(stream).await;
        assert_eq!(answer.lines().next().unwrap_or_default(), expected);
    }
    // These are under way when the server is told to stop.
    let late = [begin(half_a_head).await, begin(&half_a_body).await, begin("").await];
    let told_at = Instant::now();
    server.stop().await.expect("exit code 0");
    let took = told_at.elapsed();
    assert!(took < DRAIN + SLACK, "stopped after {took:?}");
    drop((idle, late));
}

/// What the server still says until it closes the connection.
async fn all_of(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    let read = tokio::time::timeout(CUT_OFF_WITHIN, stream.read_to_string(&mut answer)).await;
    read.expect("the connection is closed in time").expect("and in order");
    answer
}
