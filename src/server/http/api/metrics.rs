//! Prometheus metrics, gathered in slices and written in pieces: messages must not wait for either.

use std::time::Duration;

use super::{Answer, Answered, Question};
use crate::broker::inspect::{Inspect, Inspection};
use crate::broker::{Definition, DefinitionKind, Name};
use crate::management::metrics::mailboxes::{self, Mailbox};
use crate::management::metrics::objects::{self, FAMILIES, Families, Objects};
use crate::management::metrics::{Table, globals, head, whole};
use crate::management::{Fault, Pieces, peers};
use crate::server::http::scroll::{Pace, Scroll};

/// Objects in one answer of the broker.
const GATHERED_AT_ONCE: usize = 100;
/// Bytes of a page that are written at once.
const PIECE_SIZE: usize = 64 << 10;
/// After each piece of a page, which a Prometheus can wait for: ten thousand queues take less than half a second.
const REST: Duration = Duration::from_millis(1);
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
        let (mut mailboxes, mut objects) = (mailboxes::table(families), Objects::new(families));
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
                self.add_mailboxes(&mut mailboxes, vhost).await;
            }
            if families.wants_any("exchange_") {
                self.add_exchanges(&mut objects, vhost).await;
            }
        }
        if families.wants_any("channel_") {
            self.add_channels(&mut objects, wanted).await?;
        }
        if families.wants("connection_coarse_metrics") || families.wants("connection_metrics") {
            let all = self.all_connections().await?;
            for view in all.iter().filter(|it| wanted(&it.vhost)) {
                objects.add_connection(view, self.estate.register.facts(view.id));
            }
        }
        let first: [Box<dyn Pieces>; 2] = [Box::new(page.text()), Box::new(mailboxes)];
        let parts = first.into_iter().chain(objects.into_pieces());
        Ok(Answer::Scroll(KIND, Scroll::new(parts, PIECE_SIZE, Pace::Resting(REST))))
    }

    async fn every_vhost(&self) -> Result<Vec<Name>, Fault> {
        let all = self.estate.definitions(DefinitionKind::Vhost, None).await?;
        let names = all.into_iter().filter_map(|it| match it {
            Definition::Vhost(it) => Some(it.name),
            _ => None,
        });
        Ok(names.collect())
    }

    async fn add_mailboxes(&self, table: &mut Table<Mailbox>, vhost: &Name) {
        let mut after = None;
        loop {
            let inspect =
                Inspect::Mailboxes { vhost: vhost.clone(), after, count: GATHERED_AT_ONCE };
            // The virtual host may be gone meanwhile.
            let Ok(Inspection::Mailboxes(found)) = self.estate.desk.inspect(inspect).await else {
                return;
            };
            mailboxes::add(table, &found, self.estate.clock.now());
            after = found.last().map(|it| it.name.clone());
            if found.len() < GATHERED_AT_ONCE {
                return;
            }
        }
    }

    async fn add_exchanges(&self, objects: &mut Objects, vhost: &Name) {
        let mut after = None;
        loop {
            let inspect =
                Inspect::Exchanges { vhost: vhost.clone(), after, count: GATHERED_AT_ONCE };
            let Ok(Inspection::Exchanges(found)) = self.estate.desk.inspect(inspect).await else {
                return;
            };
            objects.add_exchanges(&found);
            after = found.last().map(|it| it.definition.name.clone());
            if found.len() < GATHERED_AT_ONCE {
                return;
            }
        }
    }

    async fn add_channels(
        &self,
        objects: &mut Objects,
        wanted: impl Fn(&Name) -> bool,
    ) -> Result<(), Fault> {
        let mut after = None;
        loop {
            let inspect = Inspect::Channels { after, count: GATHERED_AT_ONCE };
            let Inspection::Channels(mut found) = self.estate.desk.inspect(inspect).await? else {
                return Ok(());
            };
            after = found.last().map(|it| (it.connection, it.channel));
            let last = found.len() < GATHERED_AT_ONCE;
            found.retain(|it| wanted(&it.vhost));
            objects.add_channels(&found);
            if last {
                return Ok(());
            }
        }
    }
}
