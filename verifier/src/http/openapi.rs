//! All routes as a document that other programs read: OpenAPI 3.1. It is made of the routes themselves and of the types of their
//! messages.

use super::described::{Asker, Given, Operation, Route};
use super::routes::{OPERATORS, VERIFIERS, node, operator, registrar};
use super::{described::Routes, observe};
use halfkey_protocol::Reason;
use halfkey_protocol::wire::Problem;
use schemars::Schema;
use schemars::generate::{SchemaGenerator, SchemaSettings};
use serde_json::{Map, Value, json};

/// Every route that there is, whatever the role.
pub fn routes() -> Vec<Route> {
    let anybody: [Routes; 4] = [
        observe::health_routes(),
        observe::metrics_routes(),
        node::registrar_routes(),
        node::verifier_routes(),
    ];
    let anybody = anybody.into_iter().flat_map(|routes| routes.described(""));
    anybody
        .chain(operator::described().described(OPERATORS))
        .chain(registrar::described().described(VERIFIERS))
        .collect()
}

/// The document.
pub fn document() -> Value {
    // As they are read: what may be missing, and what may come besides.
    let settings = SchemaSettings::draft2020_12().for_deserialize().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut schemas = settings.into_generator();
    let problem = schemas.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in routes() {
        let operation = operation(&route, &mut schemas);
        let path = paths.entry(route.path.clone()).or_insert_with(|| json!({}));
        path[route.method] = operation;
    }
    let mut named = schemas.take_definitions(true);
    named.values_mut().for_each(without_links);
    let codes: Vec<_> = Reason::ALL.iter().map(|reason| reason.code()).collect();
    named["Problem"]["properties"]["code"]["enum"] = json!(codes);
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "halfkey-verifier",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What machines, operators and a verifier at its registrar ask. Byte strings are base64url without padding; \
                fields that are not known are ignored, and `null` is as good as a missing one. docs/protocol.md tells the dialogue.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "https://verifier.example:8443" }],
        "tags": [
            { "name": "machines", "description": "No certificate: a TPM speaks for its machine." },
            { "name": "operators", "description": "With the certificate of an operator's bundle." },
            { "name": "verifiers", "description": "A verifier asks its registrar on another host, with the certificate that `certificate --role registrar` made." },
            { "name": "watchers", "description": "`/metrics` at the address of `metrics_listen` alone, the others there as well." },
        ],
        "paths": paths,
        "components": {
            "schemas": named,
            "responses": { "Refused": {
                "description": "Why it was not done: the status of the reason as below, but for 405 (another method), 408 (a body that is late) and 415 (not JSON), which are `malformed`.",
                "headers": { "retry-after": {
                    "description": "With 429 and 503: seconds.",
                    "schema": { "type": "string", "pattern": "^[0-9]+$" },
                } },
                "content": { "application/json": { "schema": problem } },
            } },
            "securitySchemes": {
                "operator": { "type": "mutualTLS", "description": "`halfkey-verifier operator add`" },
                "verifier": { "type": "mutualTLS", "description": "`halfkey-verifier certificate --role registrar`" },
            },
        },
        "x-reasons": reasons(),
    })
}

/// Comments of the code link to what a reader of the document does not have, and break their lines.
fn without_links(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            if let Some(Value::String(said)) = fields.get_mut("description") {
                *said = said.replace("[`", "`").replace("`]", "`").replace("crate::", "").replace('\n', " ");
            }
            fields.values_mut().for_each(without_links);
        }
        Value::Array(values) => values.iter_mut().for_each(without_links),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What each code of a [`Problem`], and of a verdict, means.
fn reasons() -> Value {
    let row = |reason: &Reason| {
        let said = json!({ "status": reason.status(), "retry": reason.retry(), "summary": reason.summary() });
        (reason.code().to_owned(), said)
    };
    Value::Object(Reason::ALL.iter().map(row).collect())
}

fn operation(route: &Route, schemas: &mut SchemaGenerator) -> Value {
    let mut said = Operation { schemas, in_path: false, query: None, body: None, answer: Given::Text };
    (route.describe)(&mut said);
    let mut parameters = Vec::new();
    if said.in_path {
        parameters.push(in_path(&route.path));
    }
    parameters.extend(said.query.iter().flat_map(in_query));
    let content = match said.answer {
        Given::Json(schema) => json!({ "application/json": { "schema": schema } }),
        Given::Text => json!({ "text/plain": { "schema": { "type": "string" } } }),
    };
    let (tag, security) = match route.asker {
        Asker::Anybody => ("machines", json!([])),
        Asker::Operator => ("operators", json!([{ "operator": [] }])),
        Asker::Verifier => ("verifiers", json!([{ "verifier": [] }])),
        Asker::Watcher => ("watchers", json!([])),
    };
    let refused = json!({ "$ref": "#/components/responses/Refused" });
    let mut operation = json!({
        "operationId": format!("{tag}_{}", route.name),
        "summary": route.about,
        "tags": [tag],
        "security": security,
        "responses": { "200": { "description": "Done.", "content": content }, "4XX": refused, "5XX": refused },
    });
    if !parameters.is_empty() {
        operation["parameters"] = json!(parameters);
    }
    if let Some((schema, max)) = said.body {
        operation["requestBody"] = json!({
            "description": format!("At most {max} bytes."),
            "required": true,
            "content": { "application/json": { "schema": schema } },
        });
    }
    operation
}

/// The part of a path that is not fixed, by its name.
fn in_path(path: &str) -> Value {
    let name = path.split_once('{').and_then(|(_, rest)| rest.split_once('}')).map_or("", |(name, _)| name);
    let schema = match name {
        "id" => json!({ "type": "string", "format": "uuid", "description": "Node id." }),
        "number" => json!({ "type": "integer", "format": "uint64", "minimum": 0 }),
        "scope" => json!({ "type": "string", "pattern": "^(node|group|additions):[A-Za-z0-9._-]{1,64}$" }),
        other => unreachable!("{path}: what is {other}?"),
    };
    json!({ "name": name, "in": "path", "required": true, "schema": schema })
}

/// The fields of a query.
fn in_query(query: &Schema) -> Vec<Value> {
    let fields = query.get("properties").and_then(Value::as_object).into_iter().flatten();
    let field = |(name, schema): (&String, &Value)| {
        let mut schema = schema.clone();
        // One that is not there is none; there is no other way to say so.
        if let Some(kind) = schema["type"].as_array().and_then(|kinds| kinds.first()).cloned() {
            schema["type"] = kind;
        }
        let about =
            schema.as_object_mut().and_then(|schema| schema.remove("description")).unwrap_or_default();
        json!({ "name": name, "in": "query", "required": false, "description": about, "schema": schema })
    };
    fields.map(field).collect()
}
