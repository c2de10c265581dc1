//! HTTP: parses, calls one function, renders.
//!
//! | module | what |
//! | --- | --- |
//! | [`app`], [`begun`] | what handlers need, and the nodes that are about to send evidence |
//! | [`auth`], [`body`], [`parameters`], [`in_turn`] | who asks, and what, and when it is their turn |
//! | [`refusal`] | what was not served: status and reason |
//! | [`described`], [`openapi`] | what routes take and give, as a document |
//! | [`observe`], [`trace`] | what is counted of each request, and its name in the log; who watches the server |
//! | [`routes`] | what machines, operators and a verifier at its registrar ask |

pub mod app;
pub mod auth;
pub mod begun;
pub mod body;
pub mod described;
pub mod in_turn;
pub mod observe;
pub mod openapi;
pub mod parameters;
pub mod refusal;
pub mod routes;
pub mod trace;

use app::App;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::any;
use described::Routes;
use halfkey_protocol::Reason;
use refusal::Refusal;
use routes::{OPERATORS, VERIFIERS, node, operator, registrar};
use std::sync::Arc;

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Served {
    /// All of the role.
    Everything,
    /// What operators ask.
    Operators,
}

/// The routes of a role.
pub fn router(app: Arc<App>, served: Served) -> Router {
    let router = observe::health_routes().router();
    let router = match served {
        Served::Everything => roles(router, &app),
        Served::Operators => router.nest(OPERATORS, operator::routes(app.clone())),
    };
    let missing = || async { Refusal::new(Reason::NotFound, "no such path") };
    let method = || async {
        Refusal::new(Reason::Malformed, "no such method here").with_status(StatusCode::METHOD_NOT_ALLOWED)
    };
    let router = router.fallback(missing).method_not_allowed_fallback(method);
    router.layer(from_fn_with_state(app.clone(), observe::count)).with_state(app)
}

fn roles(mut router: Router<Arc<App>>, app: &Arc<App>) -> Router<Arc<App>> {
    router = match &app.registrar {
        Some(_) => {
            router.merge(node::registrar_routes().router()).nest(VERIFIERS, registrar::routes(app.clone()))
        }
        None => wrong_role(router, node::registrar_routes(), VERIFIERS),
    };
    match &app.verifier {
        Some(_) => {
            router.merge(node::verifier_routes().router()).nest(OPERATORS, operator::routes(app.clone()))
        }
        None => wrong_role(router, node::verifier_routes(), OPERATORS),
    }
}

/// These routes, and all below a path, are another server's.
#[expect(clippy::disallowed_methods, reason = "they are described where they are served")]
fn wrong_role(router: Router<Arc<App>>, routes: Routes, below: &str) -> Router<Arc<App>> {
    let paths = routes.described("").map(|route| route.path).chain([format!("{below}/{{*rest}}")]);
    paths.fold(router, |router, path| {
        router.route(
            &path,
            any(|State(app): State<Arc<App>>| async move {
                Refusal::new(Reason::WrongRole, format!("this server is a {}", app.role_name()))
                    .hint(app.other_role_hint())
            }),
        )
    })
}
