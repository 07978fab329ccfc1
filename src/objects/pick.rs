//! Least connections: picks one of several candidates and reserves there, in one step.
//!
//! A provider's share of what is open is measured against its weight, the sum of its candidates' weights: the one with the
//! smallest (open + 1) / weight is next. Among several deployments of that provider the same decides by what is open of
//! each. Equals stand in the order in which they were named.

use std::cmp::Ordering;
use std::collections::BTreeMap;

use super::wire::{Acquire, Acquired, Release};
use crate::limits::admission::Admission;
use crate::limits::ask::{Answer, Ask, Denial, Grant, Preview, Settled};

/// Who counts for each provider of a pool.
pub trait Desks {
    /// The one that counts for a provider; `None` for none that can.
    fn desk(&mut self, provider: &str) -> Option<&mut Admission>;

    /// The one that has heard of a request.
    fn who_knows(&mut self, id: &str) -> Option<&mut Admission>;
}

impl Desks for BTreeMap<String, Admission> {
    fn desk(&mut self, provider: &str) -> Option<&mut Admission> {
        self.get_mut(provider)
    }

    fn who_knows(&mut self, id: &str) -> Option<&mut Admission> {
        self.values_mut().find(|desk| desk.knows(id))
    }
}

/// How much is open for how much weight.
#[derive(Debug, Clone, Copy)]
struct Load {
    open: u64,
    weight: u64,
}

impl Load {
    /// Compares what the loads would be with one more.
    fn compare(self, other: Self) -> Ordering {
        let of = |load: Self, by: Self| {
            let next = u128::from(load.open).saturating_add(1);
            next.saturating_mul(u128::from(by.weight.max(1)))
        };
        of(self, other).cmp(&of(other, self))
    }
}

/// Reserves a request at the candidate with the least load that has room for it; at the first one, unless it may be picked.
/// Asking again with the same id leads to the same candidate and reserves nothing more.
///
/// `None` if nobody counts for any of the candidates.
pub fn acquire(now: u64, desks: &mut impl Desks, acquire: &Acquire) -> Option<Acquired> {
    let Acquire { id, candidates, pick } = acquire;
    let known = candidates.iter().position(|one| desks.desk(&one.provider).is_some_and(|desk| desk.knows(id)));
    let order = match known {
        Some(index) => vec![index],
        None if *pick => by_load(now, desks, acquire),
        None => vec![0],
    };
    let reserve = |desk: &mut Admission, ask: &Ask| desk.reserve(now, &Ask { id: id.clone(), ..ask.clone() });
    told(desks, acquire, order, reserve)
}

/// What [`acquire`] would answer for a new request, without reserving anything: what is open does not include it.
pub fn preview(now: u64, desks: &mut impl Desks, acquire: &Acquire) -> Option<Acquired> {
    let order = if acquire.pick { by_load(now, desks, acquire) } else { vec![0] };
    let look = |desk: &mut Admission, ask: &Ask| {
        let Preview { reserved, states, shadowed, breach, .. } = desk.preview(now, ask);
        match breach {
            Some(breach) => Answer::Denied(Denial { breach, states }),
            None => Answer::Granted(Grant { reserved, states, shadowed, ..Grant::default() }),
        }
    };
    told(desks, acquire, order, look)
}

/// The first candidate of an order that has room.
fn told(
    desks: &mut impl Desks,
    acquire: &Acquire,
    order: Vec<usize>,
    mut ask: impl FnMut(&mut Admission, &Ask) -> Answer,
) -> Option<Acquired> {
    let Acquire { candidates, pick, .. } = acquire;
    let mut refused: Option<(usize, Denial)> = None;
    let mut granted = None;
    for index in order {
        let Some(candidate) = candidates.get(index) else { continue };
        let Some(desk) = desks.desk(&candidate.provider) else { continue };
        match ask(desk, &candidate.ask) {
            answer @ Answer::Granted(_) => {
                granted = Some((index, answer));
                break;
            }
            Answer::Denied(denial) => {
                if refused.as_ref().is_none_or(|(_, known)| waits(&denial) < waits(known)) {
                    refused = Some((index, denial));
                }
            }
        }
    }
    let (index, answer) = granted.or_else(|| refused.map(|(index, denial)| (index, Answer::Denied(denial))))?;
    let open = |provider: &str| desks.desk(provider).map_or(0, |desk| desk.open(None));
    let counted = if *pick { candidates.as_slice() } else { candidates.get(..1).unwrap_or_default() };
    let open = counted.iter().map(|candidate| candidate.provider.as_str()).map(open).collect();
    Some(Acquired { index, answer, open })
}

/// Settles a request where it was reserved. Who has heard no answer does not know which candidate was picked, and names
/// another one.
pub fn release(now: u64, desks: &mut impl Desks, release: &Release) -> Settled {
    let Release { provider, id, settlement } = release;
    let is_there = desks.desk(provider).is_some_and(|desk| desk.knows(id));
    let elsewhere = if is_there { None } else { desks.who_knows(id) };
    let settled = elsewhere.map(|desk| desk.settle(now, id, settlement));
    settled.or_else(|| desks.desk(provider).map(|desk| desk.settle(now, id, settlement))).unwrap_or(Settled::Late)
}

/// The candidates, the least loaded one first. What should be closed by now is closed before it is counted.
fn by_load(now: u64, desks: &mut impl Desks, acquire: &Acquire) -> Vec<usize> {
    let weight_of = |provider: &str| {
        let of_it = acquire.candidates.iter().filter(|one| one.provider == provider);
        of_it.fold(0_u64, |sum, one| sum.saturating_add(one.weight))
    };
    let mut loads: Vec<(usize, Load, Load)> = Vec::with_capacity(acquire.candidates.len());
    for (index, candidate) in acquire.candidates.iter().enumerate() {
        let Some(desk) = desks.desk(&candidate.provider) else { continue };
        desk.expire(now);
        let provider = Load { open: desk.open(None), weight: weight_of(&candidate.provider) };
        let deployment = Load { open: desk.open(Some(&candidate.ask.model)), weight: candidate.weight };
        loads.push((index, provider, deployment));
    }
    loads.sort_by(|(_, provider, deployment), (_, other, its)| provider.compare(*other).then(deployment.compare(*its)));
    loads.into_iter().map(|(index, ..)| index).collect()
}

/// For how long a refusal lasts; for ever is longest.
fn waits(denial: &Denial) -> u64 {
    denial.breach.retry_after_ms.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
