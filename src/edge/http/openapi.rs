//! `/openapi.json`, made from the table of routes and the schemas beside this file.

use std::sync::OnceLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Map, Value, json};

use super::reply;
use super::routes::{ROUTES, Route};

/// Schemas of bodies and answers.
const SCHEMAS: &str = include_str!("schemas.json");

/// `GET /openapi.json`
pub async fn show() -> Response {
    static TEXT: OnceLock<Vec<u8>> = OnceLock::new();
    let text = TEXT.get_or_init(|| serde_json::to_vec(&describe()).unwrap_or_default());
    reply::written(StatusCode::OK, text.clone())
}

/// The description of the whole API.
pub fn describe() -> Value {
    let mut paths = Map::new();
    for route in ROUTES {
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        if let Value::Object(methods) = path {
            methods.insert(route.method.to_ascii_lowercase(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "cardvault",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Keeps payment cards; answers with tokens; charges them.",
        },
        "paths": paths,
        "components": {
            "schemas": serde_json::from_str::<Value>(SCHEMAS).unwrap_or_default(),
            "securitySchemes": { "bearer": { "type": "http", "scheme": "bearer" } },
        },
    })
}

fn operation(route: &Route) -> Value {
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.summary,
        "parameters": parameters(route),
        "responses": {
            "2XX": { "description": "Done." },
            "default": {
                "description": "A problem (RFC 9457).",
                "content": {
                    "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } }
                },
            },
        },
    });
    let Value::Object(members) = &mut operation else { return operation };
    if let Some(scope) = route.scope {
        // Any one of them is enough.
        let any = std::iter::once(scope).chain(route.or);
        let any: Vec<Value> = any.map(|scope| json!({ "bearer": [scope.name()] })).collect();
        members.insert("security".to_owned(), any.into());
    }
    if !route.body.is_empty() {
        let schema = json!({ "$ref": format!("#/components/schemas/{}", route.body) });
        let content = match route.body {
            // A stream: the schema is that of one line.
            "InvoiceLine" => json!({
                "application/x-ndjson": { "schema": schema },
                "text/csv": { "schema": { "type": "string" } },
            }),
            "ProcessorWebhook" => json!({ "*/*": { "schema": schema } }),
            _ => json!({ "application/json": { "schema": schema } }),
        };
        members.insert("requestBody".to_owned(), json!({ "required": true, "content": content }));
    }
    operation
}

fn parameters(route: &Route) -> Vec<Value> {
    let one = |name: &str, place: &str, required: bool| json!({ "name": name, "in": place, "required": required, "schema": { "type": "string" } });
    let in_path = route
        .path
        .split('/')
        .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
        .map(|name| one(name, "path", true));
    let in_query = route.query.iter().map(|name| one(name, "query", false));
    // What a processor sends has a signature instead.
    let key =
        (route.method == "POST" && route.scope.is_some()).then(|| one("Idempotency-Key", "header", true));
    in_path.chain(in_query).chain(key).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_body_has_its_schema_and_every_operation_one_name() {
        let schemas: Value = serde_json::from_str(SCHEMAS).unwrap();
        let mut names = std::collections::HashSet::new();
        for route in ROUTES {
            assert!(names.insert(route.operation), "{}", route.operation);
            assert!(route.body.is_empty() || schemas.get(route.body).is_some(), "{}", route.body);
            assert!(route.summary.ends_with('.'));
        }
        assert!(schemas.get("Problem").is_some());
    }
}
