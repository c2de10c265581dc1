//! The registrar of another host, asked over mTLS.

use super::{Future, Registrar, Unreachable};
use crate::api::internal::{Kept, RegistrationList};
use crate::client::{Client, ClientError};
use crate::store::{Registration, RegistrationLine, Which};
use halfkey_protocol::wire::operator::query_value;
use halfkey_protocol::{NodeId, Reason};

/// A registrar at an URL.
pub struct Remote(pub Client);

impl Registrar for Remote {
    fn registration(&self, node: NodeId) -> Future<'_, Option<Registration>> {
        Box::pin(async move {
            match self.0.get(&format!("/v1/internal/registrations/{node}")).await {
                Ok(registration) => Ok(Some(registration)),
                Err(ClientError::Refused(_, problem)) if problem.code == Reason::UnknownNode.code() => {
                    Ok(None)
                }
                Err(e) => Err(unreachable(e)),
            }
        })
    }

    fn list(&self, which: Which, limit: u64) -> Future<'_, Vec<RegistrationLine>> {
        Box::pin(async move {
            let which = match which {
                Which::After(None) => String::new(),
                Which::After(Some(id)) => format!("&after={id}"),
                Which::Named(name) => format!("&name={}", query_value(&name)),
                Which::One(id) => format!("&node={id}"),
            };
            let path = format!("/v1/internal/registrations?limit={limit}{which}");
            let list: RegistrationList = self.0.get(&path).await.map_err(unreachable)?;
            Ok(list.registrations)
        })
    }

    fn keep(&self, node: NodeId) -> Future<'_, ()> {
        Box::pin(async move {
            let path = format!("/v1/internal/registrations/{node}/keep");
            self.0.post::<Kept>(&path, &()).await.map(|_| ()).map_err(unreachable)
        })
    }
}

fn unreachable(e: ClientError) -> Unreachable {
    match e {
        ClientError::Unreachable(what) => Unreachable(what),
        ClientError::Refused(status, problem) => {
            Unreachable(format!("{status}: {}: {}", problem.code, problem.message))
        }
    }
}
