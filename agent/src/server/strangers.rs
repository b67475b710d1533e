//! Connections whose client has not been authenticated yet: so few that they cannot take all places.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::Arc;

use async_channel::{Receiver, Sender};

/// Strangers at one time, a quarter of all connections. Whoever has a right to be here is one for no longer
/// than a handshake and a request take.
pub(super) const MAX_STRANGERS: usize = 32;

/// All strangers, in the order in which they came.
#[derive(Default)]
pub(super) struct Strangers(VecDeque<(Arc<AtomicBool>, Sender<()>)>);

/// One connection, as long as it lasts.
pub(super) struct Stranger {
    /// Its client has been authenticated: it is no stranger any more.
    pub known: Arc<AtomicBool>,
    leave: Receiver<()>,
}

impl Strangers {
    /// Lets one more in. When there are too many the one that has been here longest has to leave.
    pub fn admit(&mut self) -> Stranger {
        self.0.retain(|(known, leave)| !known.load(Ordering::Relaxed) && !leave.is_closed());
        while self.0.len() >= MAX_STRANGERS {
            let Some((_, leave)) = self.0.pop_front() else { break };
            leave.close();
        }
        let (sender, leave) = async_channel::bounded(1);
        let known = Arc::new(AtomicBool::new(false));
        self.0.push_back((known.clone(), sender));
        Stranger { known, leave }
    }
}

impl Stranger {
    /// Is done when it has to leave.
    pub fn left(&self) -> impl std::future::Future<Output = ()> + Send + 'static {
        let (known, leave) = (self.known.clone(), self.leave.clone());
        async move {
            let _ = leave.recv().await;
            if known.load(Ordering::Relaxed) {
                // It was introduced in the same moment.
                std::future::pending::<()>().await;
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::indexing_slicing)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_stranger_leaves_and_nobody_who_is_known_or_gone_counts() {
        let mut strangers = Strangers::default();
        let mut all: Vec<Stranger> = (0..MAX_STRANGERS).map(|_| strangers.admit()).collect();
        let told = |all: &[Stranger]| {
            all.iter().position(|one| one.leave.is_closed() && !one.known.load(Ordering::Relaxed))
        };
        assert_eq!(told(&all), None);
        all[0].known.store(true, Ordering::Relaxed);
        all.push(strangers.admit());
        assert_eq!(told(&all), None, "one of them is known");
        drop(all.remove(1));
        all.push(strangers.admit());
        assert_eq!(told(&all), None, "one of them is gone");
        all.push(strangers.admit());
        assert_eq!(told(&all), Some(1));
    }
}
