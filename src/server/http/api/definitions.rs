//! Definitions as a file, and parameters.

use axum::http::header;
use serde_json::json;

use super::{Answer, Answered, Question};
use crate::broker::{Definition, DefinitionKind, Name, ParameterDefinition};
use crate::management::Fault;
use crate::management::definitions::{Export, GLOBAL, Import, parameter_of};
use crate::management::json as show;

/// What a whole export holds, in the order in which it is imported.
const KINDS: [DefinitionKind; 10] = [
    DefinitionKind::Vhost,
    DefinitionKind::User,
    DefinitionKind::Permission,
    DefinitionKind::TopicPermission,
    DefinitionKind::Parameter,
    DefinitionKind::Policy,
    DefinitionKind::OperatorPolicy,
    DefinitionKind::Exchange,
    DefinitionKind::Mailbox,
    DefinitionKind::Binding,
];

/// Of a single virtual host.
const KINDS_OF_VHOST: [DefinitionKind; 6] = [
    DefinitionKind::Parameter,
    DefinitionKind::Policy,
    DefinitionKind::OperatorPolicy,
    DefinitionKind::Exchange,
    DefinitionKind::Mailbox,
    DefinitionKind::Binding,
];

impl Question<'_> {
    pub(super) async fn export_all(&self) -> Answered {
        let mut export = Export::default();
        for kind in KINDS {
            for definition in self.estate.definitions(kind, None).await? {
                export.add(&definition, false);
            }
        }
        Ok(Answer::Json(export.finish(false)))
    }

    pub(super) async fn export_vhost(&self) -> Answered {
        let vhost = self.name("vhost")?;
        self.find_vhost(&vhost).await?;
        let mut export = Export::default();
        for kind in KINDS_OF_VHOST {
            for definition in self.estate.definitions(kind, Some(&vhost)).await? {
                let global = matches!(&definition, Definition::Parameter(it) if it.vhost.is_none());
                if !global {
                    export.add(&definition, true);
                }
            }
        }
        Ok(Answer::Json(export.finish(true)))
    }

    /// Adds what is not there, changes users, policies and parameters, and deletes nothing.
    pub(super) async fn import(&self) -> Answered {
        let vhost = match self.captures.get("vhost") {
            Some(_) => Some(self.name("vhost")?),
            None => None,
        };
        if let Some(vhost) = &vhost {
            self.find_vhost(vhost).await?;
        }
        let file = self.imported_file()?;
        let Import { definitions, unknown } = Import::read(&file, vhost.as_ref())?;
        let operator = |it: &Definition| matches!(it, Definition::Policy(it) if it.operator);
        if !self.guest.tags.administrator && definitions.iter().any(operator) {
            return Err(Fault::not_authorised("Not administrator user"));
        }
        let (mut imported, mut left) = (0, Vec::new());
        for definition in definitions {
            let key = definition.key();
            let names: Vec<_> = key.path.iter().map(|it| String::from_utf8_lossy(it)).collect();
            let place = format!("{:?} {}", key.kind, names.join(" ")).to_lowercase();
            match self.define(definition).await {
                Ok(()) => imported += 1,
                Err(fault) if fault.status == 503 => return Err(fault),
                // What is there in another form stays as it is.
                Err(fault) => left.push(json!({"what": place, "why": fault.reason()})),
            }
        }
        if unknown.is_empty() && left.is_empty() {
            return Ok(Answer::NoContent);
        }
        Ok(Answer::Json(json!({"imported": imported, "unknown": unknown, "left": left})))
    }

    /// The body itself, or the field `file` of a form.
    fn imported_file(&self) -> Result<Vec<u8>, Fault> {
        let kind = self.headers.get(header::CONTENT_TYPE).and_then(|it| it.to_str().ok());
        let Some(boundary) = kind.and_then(boundary) else { return Ok(self.body.to_vec()) };
        file_in_form(&self.body, boundary)
            .map(<[u8]>::to_vec)
            .ok_or_else(|| Fault::bad_request("the form has no field 'file'"))
    }

    async fn all_parameters(&self) -> Result<Vec<ParameterDefinition>, Fault> {
        let all = self.estate.definitions(DefinitionKind::Parameter, None).await?;
        let parameter = |it| match it {
            Definition::Parameter(it) => Some(it),
            _ => None,
        };
        Ok(all.into_iter().filter_map(parameter).collect())
    }

    pub(super) async fn parameters(&self) -> Answered {
        let visible = self.vhosts().await?;
        let mut all = self.all_parameters().await?;
        let component = self.captures.get("component");
        all.retain(|it| {
            it.vhost.as_ref().is_some_and(|vhost| visible.contains(vhost))
                && component.is_none_or(|component| it.component == component)
        });
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.name, |it| show::parameter(&it))?))
    }

    pub(super) async fn global_parameters(&self) -> Answered {
        let mut all = self.all_parameters().await?;
        all.retain(|it| it.vhost.is_none());
        let selection = self.query.selection()?;
        Ok(Answer::Json(selection.list(all, |it| &it.name, |it| show::parameter(&it))?))
    }

    /// Component and virtual host of the address; without them it is a global one.
    fn parameter_place(&self) -> Result<(Option<Name>, &str), Fault> {
        Ok(match self.captures.get("component") {
            Some(component) => (Some(self.name("vhost")?), component),
            None => (None, GLOBAL),
        })
    }

    async fn find_parameter(&self) -> Result<ParameterDefinition, Fault> {
        let (vhost, component) = self.parameter_place()?;
        let all = self.all_parameters().await?;
        let found = all.into_iter().find(|it| {
            it.vhost == vhost && it.component == component && it.name == *self.text("name")
        });
        found.ok_or_else(Fault::not_found)
    }

    pub(super) async fn parameter(&self) -> Answered {
        Ok(Answer::Json(show::parameter(&self.find_parameter().await?)))
    }

    pub(super) async fn define_parameter(&self) -> Answered {
        let (vhost, component) = self.parameter_place()?;
        let object = self.object()?;
        let fields = Self::fields(&object);
        let parameter = parameter_of(vhost, component, self.name("name")?, &fields)?;
        let was_there = self.find_parameter().await.is_ok();
        self.define(Definition::Parameter(parameter)).await?;
        Ok(Self::put(was_there))
    }

    pub(super) async fn delete_parameter(&self) -> Answered {
        let found = self.find_parameter().await?;
        self.undefine(&Definition::Parameter(found)).await
    }
}

/// What parts the fields of a form, if it is one.
fn boundary(content_type: &str) -> Option<&str> {
    let rest = content_type.strip_prefix("multipart/form-data")?;
    let boundary = rest.split(';').find_map(|part| part.trim().strip_prefix("boundary="))?;
    Some(boundary.trim_matches('"'))
}

fn file_in_form<'a>(body: &'a [u8], boundary: &str) -> Option<&'a [u8]> {
    let line = format!("--{boundary}");
    let mut rest = body;
    while let Some(start) = find(rest, line.as_bytes()) {
        rest = &rest[start + line.len()..];
        let head_end = find(rest, b"\r\n\r\n")?;
        let (head, after) = (&rest[..head_end], &rest[head_end + 4..]);
        let end = find(after, format!("\r\n{line}").as_bytes())?;
        if find(head, b"name=\"file\"").is_some() {
            return Some(&after[..end]);
        }
        rest = &after[end..];
    }
    None
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    memchr::memmem::find(bytes, wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_found_in_a_form() {
        let kind = "multipart/form-data; boundary=\"xx\"";
        assert_eq!(boundary(kind), Some("xx"));
        assert_eq!(boundary("application/json"), None);
        let body = b"--xx\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n\
                     --xx\r\nContent-Disposition: form-data; name=\"file\"; filename=\"d.json\"\r\n\r\n{}\r\n--xx--\r\n";
        assert_eq!(file_in_form(body, "xx"), Some(&b"{}"[..]));
        for end in 0..body.len() - 8 {
            let whole = file_in_form(&body[..end], "xx");
            assert!(whole.is_none() || whole == Some(&b"{}"[..]));
        }
        assert_eq!(file_in_form(b"--xx\r\n\r\n", "xx"), None);
    }
}
