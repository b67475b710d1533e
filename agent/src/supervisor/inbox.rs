//! What a pod's task is told, and the box that it waits at.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use event_listener::Event;

use super::api::ApiFailure;
use super::start::Started;
use crate::pod::handlers::ProbeKind;
use crate::pod::lifecycle::StartFailure;
use crate::pod::storage::Exceeded;
use crate::runtime::Exit;

/// What a pod's task is told.
pub enum Message {
    /// Something about the pod changed: look.
    Look,
    /// A start came to its end.
    Start {
        /// Which container.
        container: String,
        /// Which start.
        serial: u64,
        /// How.
        outcome: Result<Started, StartFailure>,
    },
    /// A guest ended.
    Ended {
        /// Which container.
        container: String,
        /// How.
        exit: Exit,
        /// What it has said of that.
        left: Vec<u8>,
    },
    /// Probes of a container have said so often enough in a row.
    Probed {
        /// Which container.
        container: String,
        /// What was probed.
        kind: ProbeKind,
        /// What they said.
        well: bool,
    },
    /// What a container wanted done before its stop was done, or could not be.
    PreStopped {
        /// Which container.
        container: String,
        /// How.
        outcome: Result<(), String>,
    },
    /// A guest was refused what the pod may not take of the disk.
    Exceeded(Exceeded),
    /// The pod was written down, or could not be.
    Written(std::io::Result<()>),
    /// The API server answered to a status.
    Patched(Result<(), ApiFailure>),
    /// The API server answered to the final delete.
    Deleted(Result<(), ApiFailure>),
}

/// Messages that wait for the pod's task. It holds nothing while none does, as a thousand pods have one each: a
/// channel of the usual kind has a kilobyte.
///
/// It needs no limit of its own: [`Message::Look`] is there once at most, and of the others each start, guest, hook, write,
/// patch and delete that goes on sends one, as does each limit of a volume, and each probe one a second at most.
#[derive(Default)]
pub struct Inbox {
    waiting: Mutex<VecDeque<Message>>,
    arrived: Event,
}

impl Inbox {
    fn waiting(&self) -> MutexGuard<'_, VecDeque<Message>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a message.
    pub fn put(&self, message: Message) {
        let mut waiting = self.waiting();
        let is_look = |message: &Message| matches!(message, Message::Look);
        if !(is_look(&message) && waiting.iter().any(is_look)) {
            waiting.push_back(message);
        }
        drop(waiting);
        self.arrived.notify(1);
    }

    /// Waits for the next message. (One task alone waits.)
    pub async fn take(&self) -> Message {
        loop {
            if let Some(message) = self.next() {
                return message;
            }
            let arrived = self.arrived.listen();
            // What came before the listening began.
            if let Some(message) = self.next() {
                return message;
            }
            arrived.await;
        }
    }

    fn next(&self) -> Option<Message> {
        let mut waiting = self.waiting();
        let message = waiting.pop_front();
        if waiting.is_empty() {
            waiting.shrink_to_fit();
        }
        message
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_lite::future::{block_on, zip};

    #[test]
    fn messages_come_in_their_order_and_a_look_once() {
        let inbox = Inbox::default();
        for message in [Message::Look, Message::Patched(Ok(())), Message::Look, Message::Deleted(Ok(()))] {
            inbox.put(message);
        }
        assert!(matches!(block_on(inbox.take()), Message::Look));
        assert!(matches!(block_on(inbox.take()), Message::Patched(Ok(()))));
        assert!(matches!(block_on(inbox.take()), Message::Deleted(Ok(()))));
        assert_eq!(inbox.waiting().capacity(), 0, "it holds nothing");
        // Who waits already is told.
        let (got, ()) = block_on(zip(inbox.take(), async { inbox.put(Message::Look) }));
        assert!(matches!(got, Message::Look));
    }
}
