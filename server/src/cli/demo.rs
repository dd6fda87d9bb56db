//! `scrip demo`: a small shop in a running server, through its API, so that there is something to look at.

use std::io::IsTerminal;
use std::net::ToSocketAddrs;

use anyhow::Context;
use clap::Args;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::{Value, json};

use super::output;
use crate::bench::Target;
use crate::bench::client::Api;

#[derive(Debug, Args)]
pub struct DemoArgs {
    /// The server, as host:port.
    #[arg(long, default_value = "127.0.0.1:8080")]
    server: String,
    /// An operator key of the tenant to fill.
    #[arg(long, env = "SCRIP_KEY", hide_env_values = true)]
    key: String,
    /// Members to invent.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    members: u32,
    #[arg(long)]
    json: bool,
}

/// What an operator might set up on a first day.
fn templates() -> [Value; 3] {
    let month = json!({ "type": "RELATIVE", "days": 30 });
    [
        json!({ "name": "20 off 100", "benefit": { "type": "AMOUNT_OFF", "amount": 2_000 }, "min_order_amount": 10_000,
                "validity": month, "total_stock": 10_000 }),
        json!({ "name": "10 % off, at most 50", "benefit": { "type": "PERCENT_OFF", "percent_off": 10, "max_amount": 5_000 },
                "validity": month, "total_stock": 50 }),
        json!({ "name": "A free mug", "benefit": { "type": "EXCHANGE", "product_id": "mug" }, "validity": month,
                "total_stock": 20 }),
    ]
}

impl DemoArgs {
    pub async fn run(self) -> anyhow::Result<()> {
        let addr = self.server.to_socket_addrs().ok().and_then(|mut all| all.next());
        let addr = addr.with_context(|| format!("--server {:?} is no host:port", self.server))?;
        let target = Target::new("demo", addr, self.key.clone());
        let connecting = Api::connect(&target).await;
        let mut api = connecting
            .with_context(|| format!("no server answers at {}; start one with `scrip serve --demo`", self.server))?;
        let mut rows = Vec::new();
        let bar = if std::io::stderr().is_terminal() { ProgressBar::new(5) } else { ProgressBar::hidden() };
        bar.set_style(ProgressStyle::with_template("{msg:32} {wide_bar} {pos}/{len}")?);

        for template in templates() {
            bar.set_message(format!("claims of {}", template["name"]));
            let made = api.post("/v1/coupon-templates", &template).await?.json(201)?;
            let claims = (1..=self.members)
                .map(|n| json!({ "op": "claim", "template_id": made["id"], "member_id": format!("member-{n}") }));
            let (accepted, refused) = batch(&mut api, claims).await?;
            rows.push(Shown { what: format!("claims of {}", template["name"]), accepted, refused });
            bar.inc(1);
        }
        bar.set_message("points for orders");
        let grants = (1..=self.members).map(|n| {
            json!({ "op": "grant", "member_id": format!("member-{n}"), "points": 50 + n % 200, "reference": format!("order-{n}") })
        });
        let (accepted, refused) = batch(&mut api, grants).await?;
        rows.push(Shown { what: "grants of 50 to 249 points".into(), accepted, refused });
        bar.inc(1);
        bar.set_message("points spent");
        let debits = (1..=self.members)
            .map(|n| json!({ "op": "debit", "member_id": format!("member-{n}"), "points": 100, "reference": format!("order-{n}-b") }));
        let (accepted, refused) = batch(&mut api, debits).await?;
        rows.push(Shown { what: "debits of 100 points".into(), accepted, refused });
        bar.finish_and_clear();

        output::print(self.json, &rows, &["what", "accepted", "refused"], |row| {
            vec![row.what.clone(), row.accepted.to_string(), row.refused.to_string()]
        })?;
        if !self.json {
            println!(
                "\nLook at one of them:\n  curl -s http://{}/v1/members/member-1/points -H \"Authorization: Bearer $SCRIP_KEY\"",
                self.server
            );
        }
        Ok(())
    }
}

#[derive(serde::Serialize)]
struct Shown {
    what: String,
    accepted: usize,
    refused: usize,
}

/// Sends the lines in requests of 5,000 and counts the answers.
async fn batch(api: &mut Api, lines: impl Iterator<Item = Value>) -> anyhow::Result<(usize, usize)> {
    let lines: Vec<String> = lines.map(|line| line.to_string()).collect();
    let (mut accepted, mut refused) = (0, 0);
    for chunk in lines.chunks(5_000) {
        let answer = api.post_lines("/v1/batch", &chunk.join("\n")).await?;
        anyhow::ensure!(answer.status == 200, "the batch was answered with {}", answer.status);
        for line in answer.body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let line: Value = serde_json::from_slice(line)?;
            match line["status"].as_u64() {
                Some(200..300) => accepted += 1,
                Some(409 | 422) => refused += 1,
                _ => anyhow::bail!("a line failed: {line}"),
            }
        }
    }
    Ok((accepted, refused))
}
