//! A backup taken while a server writes is one instant of the store; a restored store goes on from there.

use std::path::Path;
use std::process::{Command, Output};

use scrip_server::bench::client::Api;
use scrip_server::bench::server::ServerProcess;
use serde_json::json;

fn scrip(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scrip")).args(arguments).output().expect("scrip runs")
}

fn text(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn url(path: &Path) -> String {
    format!("sqlite:{}", path.display())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_under_load_is_sound_and_restores() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let path = folder.path().join("scrip.db");
    let copy = folder.path().join("copy.db");
    let (store, output) = (url(&path), copy.to_str().expect("a path").to_owned());
    let arguments = ["serve".to_owned(), "--store".to_owned(), store.clone()];
    let server = ServerProcess::start(env!("CARGO_BIN_EXE_scrip").into(), &arguments).await.expect("a server starts");
    let target = server.target("shop").await.expect("a tenant");
    let mut api = Api::connect(&target).await.expect("a connection");
    let grant = "/v1/members/m-1/points/grants";
    for _ in 0..20 {
        api.post(grant, &json!({ "points": 1 })).await.and_then(|answer| answer.json(201)).expect("a grant");
    }
    let writing = tokio::spawn(async move {
        let mut granted = 20_i64;
        while granted < 400 {
            api.post(grant, &json!({ "points": 1 })).await.and_then(|answer| answer.json(201)).expect("a grant");
            granted += 1;
        }
        (api, granted)
    });
    let (at, to) = (store.clone(), output.clone());
    let made = tokio::task::spawn_blocking(move || scrip(&["backup", "--store", &at, "--output", &to]));
    let made = made.await.expect("the backup ends");
    assert!(made.status.success() && text(&made).contains("clean"), "{}", text(&made));
    let (_, granted) = writing.await.expect("the writer ends");

    let again = scrip(&["backup", "--store", &store, "--output", &output]);
    assert!(!again.status.success() && text(&again).contains("exists already"), "{}", text(&again));
    let busy = scrip(&["restore", "--store", &store, "--input", &output]);
    assert!(!busy.status.success() && text(&busy).contains("stop the server first"), "{}", text(&busy));

    drop(server);
    let restored = scrip(&["restore", "--store", &store, "--input", &output]);
    assert!(restored.status.success(), "{}", text(&restored));
    let kept = std::fs::read_dir(folder.path()).expect("a folder").flatten();
    assert!(kept.into_iter().any(|file| file.file_name().to_string_lossy().contains(".before-restore-")));
    let connection = rusqlite::Connection::open(&path).expect("the restored store opens");
    let points: i64 =
        connection.query_row("SELECT total_points FROM mkt_points_account", [], |row| row.get(0)).expect("an account");
    assert!((20..=granted).contains(&points), "{points} points, of {granted} in the end");

    let other = folder.path().join("other.db");
    std::fs::write(&other, "no database").expect("a file");
    let refused = scrip(&["restore", "--store", &store, "--input", other.to_str().expect("a path")]);
    assert!(!refused.status.success(), "{}", text(&refused));
    let connection = rusqlite::Connection::open(&path).expect("the store is untouched");
    let still: i64 =
        connection.query_row("SELECT total_points FROM mkt_points_account", [], |row| row.get(0)).expect("an account");
    assert_eq!(still, points);
}
