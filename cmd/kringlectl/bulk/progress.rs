//! A bar on standard error for whoever sits before a terminal; nothing for anybody else.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::time::Duration;

/// A bar towards so many of something.
pub fn towards(what: &'static str, total: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    styled(bar, what, "{msg} [{bar:28}] {human_pos} of {human_len}, {eta} left")
}

/// A count towards nobody knows what.
pub fn of_keys(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    styled(bar, what, "{spinner} {msg} {human_pos} keys, {per_sec}")
}

fn styled(bar: ProgressBar, what: &'static str, template: &str) -> ProgressBar {
    let bar = bar.with_message(what);
    match ProgressStyle::with_template(template) {
        Ok(style) => {
            bar.set_style(style.progress_chars("=> "));
            if !bar.is_hidden() {
                bar.enable_steady_tick(Duration::from_millis(200));
            }
            bar
        }
        // A bar less is no reason to stop.
        Err(_) => ProgressBar::hidden(),
    }
}
