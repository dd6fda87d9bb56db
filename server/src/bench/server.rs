//! A server process of our own to measure: started, given a tenant, stopped, and its store verified.

use std::net::{SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;

use super::Target;
use super::client::Api;

const START_WITHIN: Duration = Duration::from_secs(30);
const STOP_WITHIN: Duration = Duration::from_secs(30);
const TENANT: &str = "bench";

/// A running server; killed when dropped.
pub struct ServerProcess {
    child: Child,
    pub addr: SocketAddr,
    platform_key: String,
}

impl ServerProcess {
    /// Runs `program arguments --listen ADDR` with a platform key and waits until it is ready.
    ///
    /// # Errors
    /// When it does not start or is not ready in time.
    pub async fn start(program: PathBuf, arguments: &[String]) -> Result<ServerProcess> {
        let addr =
            TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).context("a free port")?;
        ServerProcess::start_at(addr, program, arguments).await
    }

    /// The same at an address that is free.
    ///
    /// # Errors
    /// As [`ServerProcess::start`].
    pub async fn start_at(addr: SocketAddr, program: PathBuf, arguments: &[String]) -> Result<ServerProcess> {
        let platform_key = format!("{:032x}", rand::random::<u128>());
        let child = Command::new(&program)
            .args(arguments)
            .args(["--listen", &addr.to_string()])
            .env("SCRIP_PLATFORM_KEY", &platform_key)
            .stdout(Stdio::null())
            .spawn()
            .with_context(|| format!("starting {}", program.display()))?;
        let mut server = ServerProcess { child, addr, platform_key };
        server.wait_until_ready().await?;
        Ok(server)
    }

    async fn wait_until_ready(&mut self) -> Result<()> {
        let target = Target::new("starting", self.addr, self.platform_key.clone());
        let give_up_at = Instant::now() + START_WITHIN;
        loop {
            if let Ok(mut api) = Api::connect(&target).await
                && api.get("/readyz").await.is_ok_and(|answer| answer.status == 200)
            {
                return Ok(());
            }
            if let Some(status) = self.child.try_wait()? {
                bail!("the server ended at its start ({status}); its log above says why");
            }
            ensure!(Instant::now() < give_up_at, "the server was not ready within {START_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// The process's id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// What to measure: the tenant of an earlier run, whose data are then used again, or a new one; with an operator's and
    /// a service's key.
    pub async fn target(&self, name: impl Into<String>) -> Result<Target> {
        let platform = Target::new("platform", self.addr, self.platform_key.clone());
        let mut api = Api::connect(&platform).await?;
        let tenants = api.get("/v1/tenants?limit=200").await?.json(200)?;
        let earlier = tenants["data"].as_array().and_then(|all| all.iter().find(|tenant| tenant["name"] == TENANT));
        let tenant = match earlier {
            Some(tenant) => tenant.clone(),
            None => api.post("/v1/tenants", &json!({ "name": TENANT })).await?.json(201)?,
        };
        let id = tenant["id"].as_str().context("the tenant has no id")?;
        let mut secrets = Vec::new();
        for scope in ["OPERATOR", "SERVICE"] {
            let asked = json!({ "name": "bench", "scope": scope });
            let key = api.post(&format!("/v1/tenants/{id}/api-keys"), &asked).await?.json(201)?;
            secrets.push(key["secret"].as_str().context("the key has no secret")?.to_owned());
        }
        let [operator_key, service_key] = &secrets[..] else { unreachable!("one for each scope") };
        let target = Target::new(name, self.addr, operator_key);
        Ok(Target { service_key: service_key.clone(), pid: Some(self.child.id()), ..target })
    }

    /// Asks the server to stop and waits for it.
    pub async fn stop(mut self) -> Result<()> {
        let id = self.child.id().to_string();
        Command::new("kill").args(["-TERM", &id]).status().context("sending SIGTERM")?;
        let give_up_at = Instant::now() + STOP_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the server stopped with {status}");
                return Ok(());
            }
            ensure!(Instant::now() < give_up_at, "the server did not stop within {STOP_WITHIN:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        // Stopped already when the run went well.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
