//! What keeps a server from starting: each fault ends the process within seconds, with a message that names the setting or
//! the file and what helps; without a panic, and without a password.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use scrip_server::bench::server::ServerProcess;
use scrip_server::store::{Store, StoreOptions, StoreUrl};

use super::load::{scrip, serve};
use crate::certificate::Certificate;
use crate::harness::{Fixture, Kind};
use crate::postgres;

const ENDS_WITHIN: Duration = Duration::from_secs(10);
/// Part of every credential below; must not appear in any output.
const PASSWORD: &str = "hunter2";

/// A start that must fail.
#[derive(Default)]
struct Start {
    arguments: Vec<String>,
    environment: Vec<(&'static str, String)>,
}

impl Start {
    fn on(store: impl std::fmt::Display) -> Start {
        Start::with(["--store", &store.to_string()])
    }

    fn with<const N: usize>(arguments: [&str; N]) -> Start {
        Start { arguments: arguments.map(str::to_owned).into(), ..Start::default() }
    }

    fn setting(mut self, name: &'static str, value: &str) -> Start {
        self.environment.push((name, value.to_owned()));
        self
    }

    fn run(&self, folder: &Path) -> Output {
        // Whatever is not given is harmless: a free port, and no store outside the folder.
        let mut child = Command::new(scrip())
            .arg("serve")
            .args(&self.arguments)
            .env("SCRIP_SERVER__LISTEN", "127.0.0.1:0")
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .current_dir(folder)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let give_up_at = Instant::now() + ENDS_WITHIN;
        while child.try_wait().expect("a status").is_none() {
            if Instant::now() > give_up_at {
                child.kill().expect("it can be stopped");
                panic!("{:?} {:?} runs on", self.arguments, self.environment);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        child.wait_with_output().expect("its output")
    }

    /// Must fail with a message that has all these words in it.
    fn fails(&self, folder: &Path, words: &[&str]) {
        let output = self.run(folder);
        let said = String::from_utf8_lossy(&output.stderr);
        let case = format!("{:?} {:?}: {said}", self.arguments, self.environment);
        assert_eq!(output.status.code(), Some(1), "{case}");
        let messages: Vec<&str> = said.lines().filter(|line| line.starts_with("scrip: ")).collect();
        assert_eq!(messages.len(), 1, "one message: {case}");
        for word in words {
            assert!(said.contains(word), "{word:?} is missing: {case}");
        }
        assert!(!said.contains("panicked") && !said.contains("backtrace"), "{case}");
        let all = [output.stdout, output.stderr].concat();
        assert!(!String::from_utf8_lossy(&all).contains(PASSWORD), "a password is shown: {case}");
    }
}

#[test]
fn addresses_that_cannot_be_listened_on() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let taken = taken.local_addr().expect("its address").to_string();
    let cases = [
        (taken.as_str(), "another server is there"),
        ("nonsense", "--listen"),
        ("127.0.0.1:99999", "--listen"),
        // Reserved for documentation: no machine has it.
        ("203.0.113.7:80", "--listen"),
    ];
    for (address, word) in cases {
        Start::with(["--listen", address]).fails(folder.path(), &[address, word]);
    }
}

#[test]
fn stores_on_files_that_are_none() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let at = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(at("text"), "this is no database, and long enough to be seen as none".repeat(20)).expect("a file");
    let cases = [
        (format!("sqlite:{}", at("")), "is a folder"),
        (format!("sqlite:{}", at("text")), "no SQLite database"),
        (format!("sqlite:{}", at("text/scrip.db")), "cannot create"),
        // Nobody makes files there, not even root.
        ("sqlite:/proc/scrip.db".to_owned(), "may its folder be written?"),
        ("sqlite:".to_owned(), "name a file"),
        (format!("mysql://u:{PASSWORD}@host/db"), "expected sqlite:PATH or postgres://"),
        (format!("host=h password={PASSWORD}"), "expected sqlite:PATH or postgres://"),
    ];
    for (store, word) in cases {
        Start::on(store).fails(folder.path(), &["store.url (--store)", word]);
    }
}

#[test]
fn files_and_variables_that_are_no_configuration() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let cases = [
        ("url = ", "line 1"),
        (&format!("[store]\nurl = postgres://u:{PASSWORD}@db/scrip"), "line 2"),
        ("\u{0}\u{1}", "line 1"),
        ("[engine]\nlanez = 2", "`lanez`"),
        ("[storage]\nurl = 'sqlite:x.db'", "`storage`"),
        (&format!("[store]\npassword = '{PASSWORD}'"), "`password`"),
        ("[engine]\nlanes = 'many'", "engine.lanes"),
        ("[engine]\nlanes = -1", "engine.lanes"),
        ("[engine]\nlanes = 0", "engine.lanes is 0; it must be from 1 to"),
        ("[engine]\nqueue_max = 9223372036854775807", "engine.queue_max"),
        ("[server]\nmax_connections = 9223372036854775807", "server.max_connections"),
        ("[server]\ndrain_seconds = 9223372036854775807", "server.drain_seconds"),
        ("[log]\nformat = 'xml'", "log.format"),
        ("[log]\nfilter = 'x=[y'", "log.filter"),
    ];
    for (text, word) in cases {
        std::fs::write(folder.path().join("scrip.toml"), text).expect("a file");
        Start::with(["--config", "scrip.toml"]).fails(folder.path(), &[word]);
    }
    Start::with(["--config", "absent.toml"]).fails(folder.path(), &["absent.toml", "does not exist"]);
    let variables = [
        ("SCRIP_ENGINE__LANES", "many", "engine.lanes"),
        ("SCRIP_ENGINE__LANEZ", "2", "`lanez`"),
        ("SCRIP_ENGINE__BATCH_MAX", "99999999999999999999", "engine.batch_max"),
        ("SCRIP_STORE__URL", "scrip.db", "store.url"),
        ("SCRIP_STORE__REPLICA_URL", "replica", "store.replica_url"),
        ("SCRIP_STORE__REPLICA_URL", "sqlite:copy.db", "only PostgreSQL has replicas"),
        ("SCRIP_STORE__REPLICA_URL", "postgres://u:hunter2@127.0.0.1:1/x", "store.url is a SQLite file"),
        ("SCRIP_STORE__REPLICA_LAG_MS", "1", "store.replica_lag_ms is 1"),
        ("SCRIP_CACHE__REDIS_URL", "redis", "cache.redis_url"),
        ("SCRIP_CACHE__REDIS_URL", "http://u:hunter2@redis", "cache.redis_url"),
        ("SCRIP_LOG__FORMAT", "xml", "log.format"),
        ("SCRIP_LISTEN", "nonsense", "--listen"),
        ("SCRIP_CONFIG", "absent.toml", "absent.toml"),
        ("SCRIP_PLATFORM_KEY", PASSWORD, "SCRIP_PLATFORM_KEY must have at least 16"),
    ];
    for (name, value, word) in variables {
        Start::default().setting(name, value).fails(folder.path(), &[word]);
    }
}

#[test]
fn urls_of_postgres_that_lead_nowhere() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let closed = postgres::free_port();
    let nobody_there = "Connection refused";
    let cases = [
        (format!("postgres://u:{PASSWORD}@127.0.0.1:{closed}/db"), nobody_there),
        (format!("postgres://u:x?{PASSWORD}@127.0.0.1:{closed}/db"), nobody_there),
        (format!("postgres://127.0.0.1:{closed}/db?user=u&password={PASSWORD}"), nobody_there),
        (format!("postgres://u:x@{PASSWORD}@127.0.0.1:{closed}/db"), "cannot connect"),
        (format!("postgres://u:{PASSWORD}@127.0.0.1:port/db"), "port"),
        (format!("postgres://u:{PASSWORD}@127.0.0.1:{closed}/db?passwort=1"), "passwort"),
    ];
    for (url, word) in cases {
        Start::on(&url).fails(folder.path(), &["store.url (--store)", word]);
        Start::default().setting("SCRIP_STORE", &url).fails(folder.path(), &["store.url (--store)", word]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_that_does_not_let_us_in() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = postgres::Server::own();
    let role = postgres::GUARDED;
    let admin = postgres::connect(&format!("{}/postgres", server.base_url)).await;
    admin.batch_execute(&format!("CREATE ROLE {role} LOGIN PASSWORD 'right'")).await.expect("a role");
    let guarded = server.base_url.replace("postgres@", &format!("{role}:{PASSWORD}@"));
    Start::on(format!("{guarded}/postgres")).fails(folder.path(), &["store.url", "password authentication failed"]);
    let missing = format!("{}/missing", server.base_url);
    Start::on(&missing).fails(folder.path(), &["store.url", "database \"missing\" does not exist"]);
    // A role that may connect and no more.
    let right = guarded.replace(PASSWORD, "right");
    admin.batch_execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC").await.expect("a right less");
    Start::on(format!("{right}/postgres")).fails(folder.path(), &["schema", "permission denied"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_postgres_whose_certificate_is_not_to_be_trusted() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let server = postgres::Server::own();
    let admin = postgres::connect(&format!("{}/postgres", server.base_url)).await;
    let store = format!("{}/postgres?sslmode=require", server.base_url);
    let (expired, valid) = (Certificate::expired(), Certificate::valid());
    Start::on(&store).fails(folder.path(), &["store.url (--store)", "server does not support TLS"]);
    let cases = [
        (&expired, &expired, "certificate expired", "renew the server's certificate"),
        (&valid, &expired, "UnknownIssuer", "SSL_CERT_FILE"),
    ];
    for (shown, trusted, said, remedy) in cases {
        shown.show_on(&admin).await;
        let (name, value) = trusted.trusting();
        Start::on(&store).setting(name, &value).fails(folder.path(), &["store.url (--store)", said, remedy]);
    }
    let migrated = Command::new(scrip()).args(["migrate", "--store", &store]).envs([valid.trusting()]).output();
    let migrated = migrated.expect("the command runs");
    assert!(migrated.status.success(), "with the right certificate: {}", String::from_utf8_lossy(&migrated.stderr));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_a_newer_version_and_one_without_a_schema() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let newer = "INSERT INTO schema_migration (number, name, checksum) VALUES (999, 'newer', 'x')";
    let sqlite = Fixture::new(Kind::Sqlite).await;
    let StoreUrl::Sqlite(path) = &sqlite.url else { unreachable!("a SQLite fixture") };
    rusqlite::Connection::open(path).and_then(|connection| connection.execute(newer, [])).expect("a row");
    let postgres = Fixture::new(Kind::Postgres).await;
    let StoreUrl::Postgres(url) = &postgres.url else { unreachable!("a PostgreSQL fixture") };
    postgres::connect(url).await.batch_execute(newer).await.expect("a row");
    for store in [format!("sqlite:{}", path.display()), url.clone()] {
        Start::on(store).fails(folder.path(), &["migration 999", "run the newer version"]);
    }
    for store in ["sqlite:empty.db".to_owned(), crate::postgres::database().await] {
        let start = Start::on(store).setting("SCRIP_STORE__MIGRATE", "false");
        start.fails(folder.path(), &["the schema is missing", "scrip migrate"]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_server_on_one_sqlite_file() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let url = StoreUrl::Sqlite(folder.path().join("scrip.db"));
    let first = ServerProcess::start(scrip().into(), &serve(&url)).await.expect("the first starts");
    Start::on(&url).fails(folder.path(), &["scrip.db", "another server works on it"]);
    // The command line goes on working beside a server, and so does whatever reads.
    Store::open(&StoreOptions::new(url.clone())).await.expect("the store opens").ping().await.expect("an answer");
    first.stop().await.expect("the first stops");
    let second = ServerProcess::start(scrip().into(), &serve(&url)).await.expect("now the second may");
    drop(second);
    let third = ServerProcess::start(scrip().into(), &serve(&url)).await.expect("a killed one leaves no lock");
    third.stop().await.expect("the third stops");
}

#[test]
fn the_configuration_is_shown_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("scrip.toml");
    let settings = format!(
        "[store]\nurl = \"postgres://u:x@{PASSWORD}@db/scrip?password={PASSWORD}\"\n[cache]\nredis_url = \"redis://:{PASSWORD}@r/0\"\n\
         [webhooks]\nallow = [\"receiver.internal\"]\n[telemetry]\nsentry_dsn = \"https://{PASSWORD}@sentry.example/1\"\n"
    );
    std::fs::write(&file, settings).expect("a configuration");
    let shown = Command::new(scrip())
        .args(["config", "show", "--config", &file.display().to_string()])
        .env("SCRIP_ENGINE__LANES", "3")
        .env("SCRIP_EVENTS__NATS_URL", format!("nats://u:{PASSWORD}@broker"))
        .output()
        .expect("the command runs");
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success(), "{}", String::from_utf8_lossy(&shown.stderr));
    assert!(!text.contains(PASSWORD), "{text}");
    for line in [
        "[store]",
        "url = \"postgres://***@db/scrip?***\"",
        "redis_url = \"redis://***@r/0\"",
        "lanes = 3",
        "nats_url = \"nats://***@broker\"",
        "allow = [\"receiver.internal\"]",
        "sentry_dsn = \"https://***@sentry.example/1\"",
    ] {
        assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
    }
    // What is shown is a configuration; without its secrets, of this one only the store's address is left to set.
    let again = folder.path().join("again.toml");
    std::fs::write(&again, text).expect("a configuration");
    let checked = Command::new(scrip())
        .args(["config", "check", "--config", &again.display().to_string()])
        .env("SCRIP_STORE__URL", "sqlite:scrip.db")
        .output()
        .expect("the command runs");
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));
}
