//! One attempt to deliver: prepare the Provider, call the service, return the result.

pub mod ended;
pub mod prepared;

use tidings_core::{Failure, Outcome};

use crate::message::Message;
use crate::notifier::contract::{KeepState, Notifier, RemoteState};

pub use ended::{AttemptResult, Ended, ParkRequest, Refusal};
pub use prepared::{Prepared, PreparedProviders, prepare, revealed_channel};

/// Makes one attempt without a record of earlier states. A state is read from the service before it
/// is written.
///
/// # Errors
/// The failure, without secrets.
pub async fn attempt_once(prepared: &Prepared, message: &Message<'_>) -> Result<Ended, Failure> {
    let ended = match &prepared.notifier {
        Notifier::Message(notifier) => notifier.send(message).await.map(Ended::from),
        Notifier::State(notifier) => write_once(notifier.as_ref(), message).await,
    };
    ended.map_err(|failure| prepared.redacted(failure))
}

async fn write_once(notifier: &dyn KeepState, message: &Message<'_>) -> Result<Ended, Failure> {
    notifier.prepare(message).await?;
    let Some(desired) = notifier.desire(message).await? else {
        return Ok(Ended::nothing_to_send());
    };
    let handle = match notifier.read(&desired).await? {
        RemoteState::Same { .. } => return Ok(Ended::new(Outcome::Duplicate, ended::SAME_STATE)),
        RemoteState::Other { handle } => handle,
        RemoteState::Unknown => None,
    };
    let sent = notifier.write(&desired, handle.as_deref()).await?;
    Ok(Ended::from(sent))
}
