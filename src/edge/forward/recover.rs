//! After a restart: a forward that was being sent is never sent again. If the keeper lived on, its outcome is there or on its way; else
//! nobody will ever know.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::send::{self, lost};
use super::{Error, acknowledge, lock};
use crate::card::id::AttemptId;
use crate::edge::App;
use crate::edge::audit::event::{Actor, Origin};
use crate::edge::store::ForwardRow;
use crate::wire::forwarder::Outcome;
use crate::wire::keeper::{KNOWN_MAX, Known};

/// More than can be in flight when a process dies.
const OPEN_MAX: usize = 100_000;
/// Between two looks at whether an outcome has come.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Longer than the longest exchange.
const WAIT_MAX: Duration = Duration::from_secs(150);

/// Takes up what was being forwarded when the edge before this one ended. When it returns, what the keeper knows is in the log, and what
/// nobody knows is `unknown`; what is still under way is waited for from then on.
pub async fn recover(app: &App) -> Result<(), Error> {
    let open = app.store.open_forwards(OPEN_MAX).await?;
    let before: Vec<ForwardRow> =
        open.into_iter().filter(|row| app.charges.is_from_before(row.id.0)).collect();
    if before.is_empty() {
        return Ok(());
    }
    lock(&app.forwards.awaited).extend(before.iter().map(|row| AttemptId(row.id.0)));
    for row in settle(app, before).await? {
        let app = app.clone();
        tokio::spawn(async move { wait_for(&app, row).await });
    }
    Ok(())
}

/// Records what is known, and gives back what is still under way. Only these are asked for, and one answer is taken in after the
/// other: the keeper may hold many, and large ones.
async fn settle(app: &App, rows: Vec<ForwardRow>) -> Result<Vec<ForwardRow>, Error> {
    let mut rows = VecDeque::from(rows);
    let mut under_way = Vec::new();
    while !rows.is_empty() {
        let asked = rows.iter().take(KNOWN_MAX).map(|row| AttemptId(row.id.0)).collect();
        for known in app.keeper.known(asked).await? {
            let Some(row) = rows.pop_front() else { break };
            let attempt = AttemptId(row.id.0);
            match known {
                Known::Outcome(outcome) => end(app, row, &outcome).await,
                Known::UnderWay => under_way.push(row),
                Known::Nothing => end(app, row, &lost(attempt)).await,
            }
        }
    }
    Ok(under_way)
}

async fn end(app: &App, row: ForwardRow, outcome: &Outcome) {
    let by = (Actor::System("resolver".to_owned()), Origin::default());
    send::record(app, row, outcome, by).await;
    lock(&app.forwards.awaited).remove(&outcome.attempt);
    acknowledge(app, outcome.attempt, Vec::new(), None);
}

async fn wait_for(app: &App, row: ForwardRow) {
    let began = Instant::now();
    let mut rows = vec![row];
    while began.elapsed() < WAIT_MAX && !rows.is_empty() {
        tokio::time::sleep(LOOK_AGAIN).await;
        // A keeper that does not answer now is asked again; one that restarted knows of nothing, which settles it.
        rows = match settle(app, rows.clone()).await {
            Ok(under_way) => under_way,
            Err(_) => rows,
        };
    }
    for row in rows {
        let attempt = AttemptId(row.id.0);
        end(app, row, &lost(attempt)).await;
    }
}
