//! `scrip events`: what goes out of the event log.

use anyhow::Context;
use clap::Subcommand;
use scrip_domain::TenantId;

use super::StoreArgs;
use crate::store::read::EventPosition;

#[derive(Debug, Subcommand)]
pub enum EventsCommand {
    /// Publish events to the broker again, from a position of the log on: after the broker was wiped, for instance.
    ///
    /// A running server notices. Readers tell what they have seen already by the event's id, which is the message's id.
    Replay {
        /// `start`, or a position as /v1/events shows it: what comes after it is published again.
        #[arg(long, value_name = "POSITION")]
        from: String,
        /// Only this tenant's. Default: every tenant's.
        #[arg(long, value_name = "TENANT_ID")]
        tenant: Option<TenantId>,
        #[command(flatten)]
        store: StoreArgs,
    },
}

impl EventsCommand {
    pub async fn run(self) -> anyhow::Result<()> {
        const PAGE: i64 = 200;
        let EventsCommand::Replay { from, tenant, store } = self;
        let to = position(&from).with_context(|| {
            format!("--from {from:?} is no position; give start, or a position as /v1/events shows it, like 812-0")
        })?;
        let store = store.open_existing().await?;
        let mut count = 0;
        if let Some(tenant) = tenant {
            store.find_tenant(tenant).await?.with_context(|| format!("there is no tenant {tenant}"))?;
            store.rewind_broker(tenant, to).await?;
            count = 1;
        } else {
            let mut after = None;
            loop {
                let tenants = store.list_tenants(after, PAGE).await?;
                for tenant in &tenants {
                    store.rewind_broker(tenant.id, to).await?;
                }
                count += tenants.len();
                match tenants.last() {
                    Some(last) if tenants.len() as i64 == PAGE => after = Some(last.id),
                    _ => break,
                }
            }
        }
        println!(
            "The events of {count} tenants are published again, from {from} on, by a server with events.nats_url."
        );
        Ok(())
    }
}

fn position(text: &str) -> Option<EventPosition> {
    if text == "start" {
        return Some(EventPosition { tx: 0, ordinal: -1 });
    }
    let (tx, ordinal) = text.split_once('-')?;
    let position = EventPosition { tx: tx.parse().ok()?, ordinal: ordinal.parse().ok()? };
    (position.tx >= 0 && position.ordinal >= -1).then_some(position)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_are_those_of_the_api() {
        assert_eq!(position("start"), Some(EventPosition { tx: 0, ordinal: -1 }));
        assert_eq!(position("812-7"), Some(EventPosition { tx: 812, ordinal: 7 }));
        assert_eq!(position("0--1"), Some(EventPosition { tx: 0, ordinal: -1 }));
        for bad in ["", "812", "-1-0", "812--2", "end"] {
            assert_eq!(position(bad), None, "{bad}");
        }
    }
}
