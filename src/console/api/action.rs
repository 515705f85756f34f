//! `/api/actions/…`: what changes something. The guard lets only the role operate in.
//!
//! # Invariants
//! - An action is recorded in the stream AUDIT before it is done. If that fails, it is not done.
//! - An action that began is completed, also if the caller does not wait for the answer.

pub mod dead_letters;
pub mod providers;

use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::Request;
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::Value;
use tidings_core::runtime::codes::log as codes;
use tidings_core::runtime::http_server::Peer;

use super::Answer;
use crate::audit::{Actor, ManualAction, record};
use crate::console::Console;
use crate::console::access::{Caller, Refusal, Role};
use crate::console::problem::Problem;
use crate::console::visible::Permit;

/// The longest body of an action.
const MAX_BODY_BYTES: usize = 64 << 10;

/// The paths of actions. The layer is around all of them, so that none can forget the role. What a
/// user of the Kubernetes API may do is decided by namespace: nothing is done without a permit.
pub fn router() -> Router<Arc<Console>> {
    Router::new()
        .route("/providers/pause", post(providers::pause))
        .route("/providers/resume", post(providers::resume))
        .route("/providers/test", post(providers::test))
        .route("/dead/replay", post(dead_letters::replay))
        .route("/dead/drop", post(dead_letters::drop))
        .method_not_allowed_fallback(async || Problem::Method)
        .fallback(async || Problem::NotFound)
        .layer(from_fn(only_operators))
}

async fn only_operators(request: Request, next: Next) -> Response {
    let caller = request.extensions().get::<Caller>();
    let may_ask = |caller: &Caller| caller.role == Role::Operate || caller.user.is_some();
    match caller.is_some_and(may_ask) {
        true => next.run(request).await,
        false => Problem::Refused(Refusal::NotAllowed).into_response(),
    }
}

/// Who asks for an action.
struct Operator {
    console: Arc<Console>,
    caller: Caller,
    who: String,
    peer: String,
}

impl Operator {
    fn of(console: Arc<Console>, caller: Caller, request: &Request) -> Self {
        let peer = request.extensions().get::<Peer>();
        Self {
            console,
            who: caller.name.as_deref().unwrap_or_default().to_owned(),
            caller,
            peer: peer.map_or_else(String::new, |Peer(address)| address.ip().to_string()),
        }
    }

    /// Permits an action on something in these namespaces.
    async fn permit<const N: usize>(&self, namespaces: [&str; N]) -> Result<Permit, Problem> {
        let namespaces = namespaces.map(str::to_owned).into();
        self.console.permit(&self.caller, namespaces).await
    }

    /// Records an action, and then does it.
    async fn act(
        self,
        _permit: Permit,
        action: ManualAction,
        act: impl Future<Output = anyhow::Result<Value>> + Send + 'static,
    ) -> Answer {
        if !self.console.actions.allows(&self.who) {
            return Err(Problem::Busy);
        }
        let doing = tokio::spawn(async move {
            let actor = Actor {
                who: self.who.clone(),
                from: self.peer.clone(),
                via: "console",
            };
            record(&self.console.parts.bus, actor, &action)
                .await
                .context("nothing was done: it cannot be recorded in the stream AUDIT")?;
            tracing::info!(
                code = codes::CONSOLE_ACTION,
                action = action.name,
                target = action.target,
                who = self.who,
                peer = self.peer,
                "action on the console"
            );
            let done = act.await?;
            self.console.status.forget().await;
            self.console.polled.forget();
            anyhow::Ok(done)
        });
        let done = doing.await.context("the action did not end")?;
        super::json(&done?)
    }
}
