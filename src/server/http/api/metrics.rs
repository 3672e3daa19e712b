//! Prometheus metrics, gathered in slices.

use super::{Answer, Answered, Question};
use crate::broker::inspect::{Inspect, Inspection, SLICE_MAX};
use crate::broker::{Definition, DefinitionKind, Name};
use crate::management::Fault;
use crate::management::metrics::{FAMILIES, Page, head, mailboxes, whole};

const KIND: &str = "text/plain; version=0.0.4; charset=utf-8";

impl Question<'_> {
    pub(super) async fn metrics(&self) -> Answered {
        let (overview, host) = (self.estate.overview().await?, self.estate.host().await?);
        Ok(Answer::Text(KIND, whole(&overview, &host).text()))
    }

    pub(super) async fn metrics_per_object(&self) -> Answered {
        let mut page = head(&self.estate.host().await?);
        let vhosts = self.every_vhost().await?;
        self.add_mailboxes(&mut page, &vhosts, None).await?;
        Ok(Answer::Text(KIND, page.text()))
    }

    pub(super) async fn metrics_detailed(&self) -> Answered {
        let chosen: Vec<String> = self.query.all("family").map(str::to_owned).collect();
        if let Some(unknown) = chosen.iter().find(|it| !FAMILIES.contains(&it.as_str())) {
            return Err(Fault::bad_request(format!("there is no family '{unknown}' here")));
        }
        let mut page = head(&self.estate.host().await?);
        let asked: Vec<&str> = self.query.all("vhost").collect();
        let mut vhosts = self.every_vhost().await?;
        vhosts.retain(|vhost| asked.is_empty() || asked.contains(&vhost.as_str()));
        if !chosen.is_empty() {
            self.add_mailboxes(&mut page, &vhosts, Some(&chosen)).await?;
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

    /// Each slice becomes text before the next is asked for.
    async fn add_mailboxes(
        &self,
        page: &mut Page,
        vhosts: &[Name],
        chosen: Option<&[String]>,
    ) -> Result<(), Fault> {
        let now = self.estate.clock.now().seconds();
        for vhost in vhosts {
            let mut after = None;
            loop {
                let inspect = Inspect::Mailboxes { vhost: vhost.clone(), after, count: SLICE_MAX };
                // The virtual host may be gone meanwhile.
                let Ok(Inspection::Mailboxes(found)) = self.estate.desk.inspect(inspect).await
                else {
                    break;
                };
                mailboxes(page, &found, now, chosen);
                after = found.last().map(|it| it.name.clone());
                if found.len() < SLICE_MAX {
                    break;
                }
            }
        }
        Ok(())
    }
}
