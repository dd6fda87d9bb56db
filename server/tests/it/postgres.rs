//! A real PostgreSQL for the tests: `SCRIP_TEST_POSTGRES` when it is set, else a server of our own in a temporary folder.
//!
//! The own server is watched by a shell that holds a pipe from this process: when the tests end, however they end, the pipe
//! closes and the shell stops the server and removes its folder.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

/// A server to make databases on.
pub struct Server {
    /// Without a database, for instance `postgres://postgres@127.0.0.1:5432`.
    pub base_url: String,
    /// Keeps the pipe open.
    _watcher: Option<Child>,
}

/// The server all tests of this process share.
pub fn server() -> &'static Server {
    static SERVER: OnceLock<Server> = OnceLock::new();
    SERVER.get_or_init(|| match std::env::var("SCRIP_TEST_POSTGRES") {
        Ok(url) => Server { base_url: url.trim_end_matches('/').to_owned(), _watcher: None },
        Err(_) => start(),
    })
}

/// A connection of a test's own.
pub async fn connect(url: &str) -> tokio_postgres::Client {
    let (client, connection) =
        tokio_postgres::connect(url, tokio_postgres::NoTls).await.expect("the test server answers");
    tokio::spawn(connection);
    client
}

/// A new, empty database; its URL.
pub async fn database() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let base = &server().base_url;
    let name = format!("scrip_{}_{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    let (client, connection) = tokio_postgres::connect(&format!("{base}/postgres"), tokio_postgres::NoTls)
        .await
        .expect("the test server answers");
    tokio::spawn(connection);
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("a database can be made");
    format!("{base}/{name}")
}

fn start() -> Server {
    let programs = programs().expect("PostgreSQL is installed (make test installs it)");
    let folder = tempfile::Builder::new().prefix("scrip-pg-").tempdir().expect("a temporary folder").keep();
    let port = free_port();
    // initdb refuses root; Debian's package brings the user postgres.
    let is_root = Command::new("id").arg("-u").output().is_ok_and(|out| out.stdout.starts_with(b"0\n"));
    let script = format!(
        r#"set -e
        run() {{ if [ "{is_root}" = true ]; then runuser -u postgres -- "$@"; else "$@"; fi; }}
        if [ "{is_root}" = true ]; then chown postgres "{dir}"; fi
        run "{bin}/initdb" -D "{dir}/data" -U postgres -A trust -E UTF8 --locale=C --no-sync >"{dir}/log" 2>&1
        run "{bin}/pg_ctl" -D "{dir}/data" -w -l "{dir}/server.log" -o "-p {port} -k {dir} -c listen_addresses=127.0.0.1 -c max_connections=400 -c shared_buffers=256MB" start >>"{dir}/log" 2>&1
        echo ready
        cat >/dev/null || true
        run "{bin}/pg_ctl" -D "{dir}/data" -m immediate stop >/dev/null 2>&1 || true
        rm -rf "{dir}""#,
        dir = folder.display(),
        bin = programs.display(),
    );
    let mut watcher = Command::new("sh")
        .args(["-c", &script])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a shell to watch the server");
    let mut said = String::new();
    let out = watcher.stdout.take().expect("a pipe was asked for");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(out), &mut said).expect("the shell answers");
    assert_eq!(said.trim(), "ready", "PostgreSQL did not start; see {}", folder.display());
    Server { base_url: format!("postgres://postgres@127.0.0.1:{port}"), _watcher: Some(watcher) }
}

/// Where the server programs are: on the path, or where Debian keeps them.
fn programs() -> Option<PathBuf> {
    let debian = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut folders: Vec<PathBuf> = debian.map(|version| version.path().join("bin")).collect();
    folders.sort();
    folders.reverse();
    let path = std::env::var("PATH").unwrap_or_default();
    folders.extend(std::env::split_paths(&path));
    folders.into_iter().find(|folder: &PathBuf| has_programs(folder))
}

fn has_programs(folder: &Path) -> bool {
    folder.join("initdb").is_file() && folder.join("pg_ctl").is_file()
}

pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("its address").port()
}
