//! Looks now and then whether images that no pod has must make room.

use std::time::Duration;

use async_io::Timer;

use crate::control;
use crate::image::{Collected, Store, Thresholds};

/// Between two looks (`ImageGCPeriod` of the kubelet).
const PERIOD: Duration = Duration::from_secs(300);
/// After a start; then twice as long each time, until it is known which pods there are.
const FIRST: Duration = Duration::from_secs(10);

/// What cannot be helped. Its figures are others at each look.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Problem {
    Short,
    Failed,
}

/// Looks for ever. What cannot be helped is said once, until it is over.
pub async fn run(store: Store, thresholds: Thresholds) {
    let mut told = None;
    let mut pause = FIRST;
    loop {
        Timer::after(pause).await;
        let looking = store.clone();
        let problem = match control::blocking(move || looking.collect(thresholds)).await {
            Ok(Collected::NotNow) => {
                pause = pause.saturating_mul(2).min(PERIOD);
                continue;
            }
            Ok(Collected::Removed { wanted, freed, used }) if freed < wanted => Some((
                Problem::Short,
                format!(
                    "the disk is {used} % full, {wanted} bytes should go, and images that no pod has made up {freed}"
                ),
            )),
            Ok(_) => None,
            Err(error) => Some((Problem::Failed, format!("removing images that no pod has: {error}"))),
        };
        if let Some((_, text)) = problem.as_ref().filter(|(kind, _)| told != Some(*kind)) {
            log::warn!("{text}");
        }
        (told, pause) = (problem.map(|(kind, _)| kind), PERIOD);
    }
}
