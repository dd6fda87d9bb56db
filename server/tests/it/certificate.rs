//! Certificates for the tests' own servers, made by openssl; `make deps` installs it.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use crate::webhooks::until;

/// A certificate for 127.0.0.1 that vouches for itself, in a folder that the user postgres may read.
pub struct Certificate {
    folder: tempfile::TempDir,
}

/// Makes a certificate that is valid from 2020 to the date of the second argument.
const MAKE: &str = r#"set -e
cd "$1"
openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout key.pem -out request.pem -subj "/CN=until $2"
cat >ca.cnf <<'END'
[ca]
default_ca = own
[own]
database = index.txt
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = server
[any]
commonName = supplied
[server]
subjectAltName = IP:127.0.0.1
basicConstraints = critical,CA:FALSE
END
touch index.txt
echo 01 >serial
openssl ca -batch -selfsign -config ca.cnf -keyfile key.pem -in request.pem -out certificate.pem -notext \
    -startdate 20200101000000Z -enddate "$2"
chmod 600 key.pem
if [ "$(id -u)" = 0 ]; then chown -R postgres .; fi"#;

impl Certificate {
    /// Until the year 2100.
    pub fn valid() -> Certificate {
        Certificate::until("21000101000000Z")
    }

    /// Since February 2020.
    pub fn expired() -> Certificate {
        Certificate::until("20200201000000Z")
    }

    fn until(end: &str) -> Certificate {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let made =
            Command::new("sh").args(["-c", MAKE, "sh"]).arg(folder.path()).arg(end).stdin(Stdio::null()).output();
        let made = made.expect("a shell");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        Certificate { folder }
    }

    pub fn path(&self) -> PathBuf {
        self.folder.path().join("certificate.pem")
    }

    pub fn key_path(&self) -> PathBuf {
        self.folder.path().join("key.pem")
    }

    /// The variable that makes a process trust it, and nothing else.
    pub fn trusting(&self) -> (&'static str, String) {
        ("SSL_CERT_FILE", self.path().display().to_string())
    }

    /// Has a PostgreSQL show it from now on.
    pub async fn show_on(&self, admin: &tokio_postgres::Client) {
        for (setting, value) in [("ssl_cert_file", self.path()), ("ssl_key_file", self.key_path())] {
            let set = format!("ALTER SYSTEM SET {setting} = '{}'", value.display());
            admin.batch_execute(&set).await.expect("a setting");
        }
        admin.batch_execute("ALTER SYSTEM SET ssl = on").await.expect("a setting");
        admin.batch_execute("SELECT pg_reload_conf()").await.expect("it reads them");
        let told = self.path().display().to_string();
        until("the certificate is shown", async || {
            let row = admin.query_one("SELECT current_setting('ssl') || ' ' || current_setting('ssl_cert_file')", &[]);
            (row.await.ok()?.get::<_, String>(0) == format!("on {told}")).then_some(())
        })
        .await;
    }
}
