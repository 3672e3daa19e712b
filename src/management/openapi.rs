//! A description of the routes for tools, made from the routes themselves.

use serde_json::{Map, Value, json};

use super::routes::{Call, Needs, ROUTES};

/// What may stand behind the question mark where messages are shown.
const BROWSE: &[(&str, &str, &str)] = &[
    (
        "state",
        "string",
        "ready, unsettled, delayed, dead, settled, with commas between them; without it all",
    ),
    ("where", "string", "A condition over headers and properties, as JMS has it"),
    ("after", "string", "The place behind which to go on: `next` of the page before"),
    ("count", "integer", "At most so many messages, 20 where nothing is said, never more than 500"),
    ("encoding", "string", "`base64` for all bodies; otherwise only for those that are no text"),
    ("truncate", "integer", "Bodies are cut to so many bytes"),
];

pub fn describe() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in ROUTES {
        let names = route
            .path
            .split('/')
            .filter_map(|part| part.strip_prefix('{').and_then(|part| part.strip_suffix('}')));
        let mut parameters: Vec<Value> = names
            .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
            .collect();
        if route.call == Call::BrowseMessages {
            parameters.extend(BROWSE.iter().map(|(name, kind, about)| {
                json!({"name": name, "in": "query", "description": about, "schema": {"type": kind}})
            }));
        }
        let needs = match route.needs {
            Needs::Nothing => "nothing",
            Needs::Management => "management",
            Needs::Policymaker => "policymaker",
            Needs::Monitoring => "monitoring",
            Needs::Administrator => "administrator",
        };
        let mut operation = json!({
            "operationId": format!("{:?}", route.call),
            "summary": route.about,
            "parameters": parameters,
            "x-tag-needed": needs,
            "responses": {
                "2XX": {"description": "Done"},
                "4XX": {"description": "Not done", "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Fault"}}}},
            },
        });
        if route.needs == Needs::Nothing {
            operation["security"] = json!([]);
        }
        if route.path.contains("/health") {
            operation["responses"]["503"] = json!({"description": "The check failed"});
        }
        let method = route.method.name().to_lowercase();
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[method] = operation;
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Pillarbox",
            "description": "The HTTP API of RabbitMQ, as far as Pillarbox has it",
            "version": env!("CARGO_PKG_VERSION"),
        },
        "security": [{"basic": []}],
        "paths": paths,
        "components": {
            "securitySchemes": {"basic": {"type": "http", "scheme": "basic"}},
            "schemas": {"Fault": {
                "type": "object",
                "properties": {"error": {"type": "string"}, "reason": {"type": "string"}},
            }},
        },
    })
}
