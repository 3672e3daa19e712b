//! Prometheus metrics, gathered in slices: each becomes text before the next is asked for.

use tokio::task::yield_now;

use super::{Answer, Answered, Question};
use crate::broker::inspect::{Inspect, Inspection, SLICE_MAX};
use crate::broker::{Definition, DefinitionKind, Name};
use crate::management::Fault;
use crate::management::metrics::objects::{self, FAMILIES, Families};
use crate::management::metrics::{Page, globals, head, mailboxes, whole};
use crate::management::peers;

/// Mailboxes of which this task writes without letting others go on: messages must not wait for metrics.
const WRITTEN_AT_ONCE: usize = 50;
const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Question<'_> {
    pub(super) async fn metrics(&self) -> Answered {
        let (overview, host) = (self.estate.overview().await?, self.estate.host().await?);
        let mut page = whole(&overview, &host);
        self.estate.certificates().write(&mut page);
        peers::metrics(&mut page, &self.estate.peers().await?, self.estate.clock.now());
        Ok(Answer::Text(KIND, page.text()))
    }

    pub(super) async fn metrics_per_object(&self) -> Answered {
        self.objects(Families::all()).await
    }

    pub(super) async fn metrics_detailed(&self) -> Answered {
        let chosen: Vec<String> = self.query.all("family").map(str::to_owned).collect();
        if let Some(unknown) = chosen.iter().find(|it| !FAMILIES.contains(&it.as_str())) {
            return Err(Fault::bad_request(format!("there is no family '{unknown}' here")));
        }
        self.objects(Families::chosen(&chosen)).await
    }

    async fn objects(&self, families: Families<'_>) -> Answered {
        let host = self.estate.host().await?;
        let mut page = head(&host, families);
        let asked: Vec<&str> = self.query.all("vhost").collect();
        let wanted = |vhost: &Name| asked.is_empty() || asked.contains(&vhost.as_str());
        if families.wants_any("node_") || families.wants_any("connection_churn") {
            let overview = self.estate.overview().await?;
            objects::node(&mut page, &overview, &host, families);
            if families.are_all() {
                globals(&mut page, &overview, &host);
                self.estate.certificates().write(&mut page);
                let peers = self.estate.peers().await?;
                peers::metrics(&mut page, &peers, self.estate.clock.now());
            }
        }
        for vhost in self.every_vhost().await?.iter().filter(|it| wanted(it)) {
            objects::vhost(&mut page, vhost, families);
            if families.wants_any("queue_") {
                self.add_mailboxes(&mut page, vhost, families).await;
            }
            if families.wants_any("exchange_") {
                self.add_exchanges(&mut page, vhost, families).await;
            }
        }
        if families.wants_any("channel_") {
            self.add_channels(&mut page, wanted, families).await?;
        }
        if families.wants("connection_coarse_metrics") || families.wants("connection_metrics") {
            self.add_connections(&mut page, wanted, families).await?;
        }
        Ok(Answer::Text(KIND, page.text()))
    }

    async fn every_vhost(&self) -> Result<Vec<Name>, Fault> {
        let all = self.estate.definitions(DefinitionKind::Vhost, None).await?;
        let names = all.into_iter().filter_map(|it| match it {
            Definition::Vhost(it) => Some(it.name),
            _ => None,
        });
        Ok(names.collect())
    }

    async fn add_mailboxes(&self, page: &mut Page, vhost: &Name, families: Families<'_>) {
        let mut after = None;
        loop {
            let inspect = Inspect::Mailboxes { vhost: vhost.clone(), after, count: SLICE_MAX };
            // The virtual host may be gone meanwhile.
            let Ok(Inspection::Mailboxes(found)) = self.estate.desk.inspect(inspect).await else {
                return;
            };
            for few in found.chunks(WRITTEN_AT_ONCE) {
                mailboxes(page, few, self.estate.clock.now(), families);
                yield_now().await;
            }
            after = found.last().map(|it| it.name.clone());
            if found.len() < SLICE_MAX {
                return;
            }
        }
    }

    async fn add_exchanges(&self, page: &mut Page, vhost: &Name, families: Families<'_>) {
        let mut after = None;
        loop {
            let inspect = Inspect::Exchanges { vhost: vhost.clone(), after, count: SLICE_MAX };
            let Ok(Inspection::Exchanges(found)) = self.estate.desk.inspect(inspect).await else {
                return;
            };
            objects::exchanges(page, &found, families);
            after = found.last().map(|it| it.definition.name.clone());
            if found.len() < SLICE_MAX {
                return;
            }
        }
    }

    async fn add_channels(
        &self,
        page: &mut Page,
        wanted: impl Fn(&Name) -> bool,
        families: Families<'_>,
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let inspect = Inspect::Channels { after, count: SLICE_MAX };
            let Inspection::Channels(mut found) = self.estate.desk.inspect(inspect).await? else {
                return Ok(());
            };
            after = found.last().map(|it| (it.connection, it.channel));
            let last = found.len() < SLICE_MAX;
            found.retain(|it| wanted(&it.vhost));
            objects::channels(page, &found, families);
            if last {
                return Ok(());
            }
        }
    }

    async fn add_connections(
        &self,
        page: &mut Page,
        wanted: impl Fn(&Name) -> bool,
        families: Families<'_>,
    ) -> Result<(), Fault> {
        let mut all = self.all_connections().await?;
        all.retain(|it| wanted(&it.vhost));
        let facts = |view: &_| {
            let view: &crate::broker::inspect::ConnectionView = view;
            self.estate.register.facts(view.id)
        };
        objects::connections(page, &all, facts, families);
        Ok(())
    }
}
