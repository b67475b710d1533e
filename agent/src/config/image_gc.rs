//! When images are removed that no pod of this node has.

use super::agent::{number, parse_number};
use super::setting::Setting;
use super::values::{UsageError, Values};
use crate::image::Thresholds;

const HIGH: &str = "image-gc-high-threshold";
const LOW: &str = "image-gc-low-threshold";
/// `imageGCHighThresholdPercent` and `imageGCLowThresholdPercent` of a kubelet.
const DEFAULT: Thresholds = Thresholds { high: 85, low: 80 };

/// `--image-gc-high-threshold`
pub(super) const IMAGE_GC_HIGH_THRESHOLD: Setting = number(
    HIGH,
    "PERCENT",
    Some("85"),
    "How full the disk of the data folder may be: from here on images that no pod of this node has are removed, those \
     first that were not used for the longest. At 100 they are removed only for an image that finds no room.",
);

/// `--image-gc-low-threshold`
pub(super) const IMAGE_GC_LOW_THRESHOLD: Setting =
    number(LOW, "PERCENT", Some("80"), "How full the disk is when no more images are removed.");

/// Both.
///
/// # Errors
/// That one is no percentage, or the lower one not the lower.
pub(super) fn thresholds(values: &Values) -> Result<Thresholds, UsageError> {
    let percent = |name: &str| values.parse(name, |text| parse_number(text, 0, 100_u8));
    let high = percent(HIGH)?.unwrap_or(DEFAULT.high);
    let low = percent(LOW)?.unwrap_or(DEFAULT.low);
    if low < high {
        return Ok(Thresholds { high, low });
    }
    Err(values.refuse(LOW, &format!("not less than --{HIGH}, which is {high}")))
}
