//! The page: one file, no script, nothing from elsewhere, readable on a phone.

use std::fmt::Write;

use super::status::Status;
use crate::log::{Logs, ReadOptions};
use crate::server::PodsView;

/// Containers whose last lines are shown: a page for a person.
const MAX_LOGS: usize = 50;
/// Of each.
const LINES: u64 = 5;
const MAX_BYTES: u64 = 2048;

const HEAD: &str = include_str!("head.html");

/// All that there is to see.
pub async fn render(status: &Status, pods: &dyn PodsView, logs: &Logs) -> String {
    let mut page = HEAD.replace("NODE", &escaped(&status.figures.machine.node));
    // Writing to a String cannot fail.
    let _ = write(&mut page, status);
    let mut left = MAX_LOGS;
    for pod in &status.pods {
        let meta = &pod.metadata;
        for container in pod.spec.init_containers.iter().chain(&pod.spec.containers) {
            let found = pods.container_log(&meta.namespace, &meta.name, &container.name, false);
            let (Ok(target), true) = (found, left > 0) else { continue };
            left = left.saturating_sub(1);
            let options = ReadOptions { tail: Some(LINES), limit: Some(MAX_BYTES), ..ReadOptions::default() };
            let mut lines = Vec::new();
            if let Ok(mut reader) = logs.read(&target.pod, &target.container, target.restart, options).await {
                while let Some(Ok(piece)) = reader.next().await {
                    lines.extend_from_slice(&piece);
                }
            }
            let (name, lines) = (
                format!("{}/{}/{}", meta.namespace, meta.name, container.name),
                String::from_utf8_lossy(&lines),
            );
            let (name, lines) = (escaped(&name), escaped(&lines));
            let _ = write!(page, "<h3><a href=\"/logs/{name}?tail=1000\">{name}</a></h3><pre>{lines}</pre>");
        }
    }
    page
}

fn write(page: &mut String, status: &Status) -> std::fmt::Result {
    page.push_str("<table>");
    for (heading, fact) in status.facts() {
        write!(page, "<tr><th>{heading}<td>{}", escaped(&fact))?;
    }
    page.push_str("</table><h2>Pods</h2><table class=pods><tr><th>Pod<th>Ready<th>Status<th>Restarts<th>Age");
    for row in status.rows() {
        let well = matches!(row.status.as_str(), "Running" | "Completed" | "Succeeded");
        let class = if well { "well" } else { "ill" };
        let name = format!("{}/<wbr>{}", escaped(row.namespace), escaped(row.name));
        let word = escaped(&row.status);
        write!(
            page,
            "<tr><td>{name}<td>{}<td class={class}>{word}<td>{}<td>{}",
            row.ready, row.restarts, row.age
        )?;
    }
    page.push_str("</table><h2>Logs</h2>");
    Ok(())
}

/// Text as it is, whatever is in it.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            // Colours and movements of a terminal.
            c if c.is_control() && c != '\n' && c != '\t' => escaped.push('\u{fffd}'),
            c => escaped.push(c),
        }
    }
    escaped
}
