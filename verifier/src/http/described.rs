//! Routes that say what they take and give: a route is described by the signature of its handler, so that neither is there without the
//! other. [`super::openapi`] makes a document of them.

use super::app::App;
use super::body::Json;
use super::parameters::InPath;
use super::refusal::{Answer, Refusal};
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::handler::Handler;
use axum::http::HeaderName;
use axum::routing::{MethodRouter, get, post};
use axum::{Extension, Router};
use schemars::generate::SchemaGenerator;
use schemars::{JsonSchema, Schema};
use std::sync::Arc;

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asker {
    /// Anybody: a machine's TPM speaks for it, in the message.
    Anybody,
    /// With a client certificate that is listed as an operator's.
    Operator,
    /// With a client certificate that is listed as a verifier's.
    Verifier,
    /// Who reaches the address of `metrics_listen`, without TLS.
    Watcher,
}

/// What is said of a route.
#[derive(Clone, Debug)]
pub struct Route {
    /// `get` or `post`.
    pub method: &'static str,
    /// With `{..}` for what is not fixed.
    pub path: String,
    /// Name of the handler.
    pub name: &'static str,
    /// One sentence.
    pub about: &'static str,
    /// Who may ask.
    pub asker: Asker,
    /// What the handler takes and gives.
    pub describe: fn(&mut Operation<'_>),
}

/// What a handler takes and gives.
pub struct Operation<'a> {
    /// Makes schemas, and keeps those that are named.
    pub schemas: &'a mut SchemaGenerator,
    /// Of the path: its one part that is not fixed.
    pub in_path: bool,
    /// Of the query, an object.
    pub query: Option<Schema>,
    /// Of the body, and how many bytes it has at most.
    pub body: Option<(Schema, usize)>,
    /// Of the answer.
    pub answer: Given,
}

/// What an answer is.
pub enum Given {
    /// JSON.
    Json(Schema),
    /// Plain text.
    Text,
}

/// Routes of one kind of asker.
pub struct Routes {
    asker: Asker,
    router: Router<Arc<App>>,
    described: Vec<Route>,
}

impl Routes {
    /// None yet.
    pub fn of(asker: Asker) -> Self {
        Self { asker, router: Router::new(), described: Vec::new() }
    }

    /// One more, for `GET`.
    #[must_use]
    pub fn get<H, P, T>(self, path: &str, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>> + Describes<P>,
        T: 'static,
    {
        self.with("get", path, about, get(handler), std::any::type_name::<H>(), H::describe)
    }

    /// One more, for `POST`.
    #[must_use]
    pub fn post<H, P, T>(self, path: &str, about: &'static str, handler: H) -> Self
    where
        H: Handler<T, Arc<App>> + Describes<P>,
        T: 'static,
    {
        self.with("post", path, about, post(handler), std::any::type_name::<H>(), H::describe)
    }

    #[expect(clippy::disallowed_methods, reason = "here it is described")]
    fn with(
        mut self,
        method: &'static str,
        path: &str,
        about: &'static str,
        served: MethodRouter<Arc<App>>,
        handler: &'static str,
        describe: fn(&mut Operation<'_>),
    ) -> Self {
        let name = handler.rsplit("::").next().unwrap_or(handler);
        let path = path.to_owned();
        self.router = self.router.route(&path, served);
        self.described.push(Route { method, path, name, about, asker: self.asker, describe });
        self
    }

    /// All of both; what is in `others` keeps its asker.
    #[must_use]
    pub fn merge(mut self, others: Self) -> Self {
        self.router = self.router.merge(others.router);
        self.described.extend(others.described);
        self
    }

    /// What is served.
    pub fn router(self) -> Router<Arc<App>> {
        self.router
    }

    /// What is said of them, below a path.
    pub fn described(self, below: &str) -> impl Iterator<Item = Route> {
        self.described.into_iter().map(move |route| Route { path: format!("{below}{}", route.path), ..route })
    }
}

/// A handler, by its signature.
pub trait Describes<P> {
    /// Adds what it takes and gives.
    fn describe(operation: &mut Operation<'_>);
}

/// What a handler takes of a request.
pub trait Taken {
    /// Adds it; what does not come from the message says nothing.
    fn describe(_: &mut Operation<'_>) {}
}

/// What a handler gives.
pub trait Gives {
    /// Says it.
    fn given(schemas: &mut SchemaGenerator) -> Given;
}

macro_rules! handlers {
    ($($($taken:ident)*;)+) => {$(
        impl<F, Answered, Gave, $($taken),*> Describes<($($taken,)*)> for F
        where
            F: Fn($($taken),*) -> Answered,
            Answered: Future<Output = Gave>,
            Gave: Gives,
            $($taken: Taken,)*
        {
            fn describe(operation: &mut Operation<'_>) {
                $($taken::describe(operation);)*
                operation.answer = Gave::given(operation.schemas);
            }
        }
    )+};
}
handlers! { ; A; A B; A B C; A B C D; }

impl<T> Taken for State<T> {}
impl<T> Taken for Extension<T> {}

impl Taken for InPath {
    fn describe(operation: &mut Operation<'_>) {
        operation.in_path = true;
    }
}

impl<T: JsonSchema> Taken for Result<Query<T>, QueryRejection> {
    fn describe(operation: &mut Operation<'_>) {
        // Not by name: its fields are parameters.
        operation.query = Some(T::json_schema(operation.schemas));
    }
}

impl<T: JsonSchema, const MAX: usize> Taken for Json<T, MAX> {
    fn describe(operation: &mut Operation<'_>) {
        operation.body = Some((operation.schemas.subschema_for::<T>(), MAX));
    }
}

impl<T: JsonSchema> Gives for Answer<T> {
    fn given(schemas: &mut SchemaGenerator) -> Given {
        Given::Json(schemas.subschema_for::<T>())
    }
}

/// Text, or why there is none.
pub type Text = Result<([(HeaderName, &'static str); 1], String), Refusal>;

impl Gives for Text {
    fn given(_: &mut SchemaGenerator) -> Given {
        Given::Text
    }
}
