//! Which fault comes when: drawn from a seed, so that a run can be repeated.

use std::time::Duration;

use super::draw::Draw;
use super::kinds::{Company, Kind};

/// From one turn to the next.
pub(super) const TURN: Duration = Duration::from_secs(20);

/// What begins at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Turn {
    /// When, from the start of the schedule.
    pub(super) at: Duration,
    /// What runs alone, or with something beside it.
    pub(super) main: Option<Kind>,
    /// What runs beside it.
    pub(super) beside: Option<Kind>,
    /// Decides whom it hits.
    pub(super) draw: u64,
}

/// The schedule of `seed`. In 20 minutes every kind that may run beside others comes twice at least, and each of the
/// others once; in less time, as many as there is time for.
pub(super) fn draw(seed: u64, minutes: u32, kinds: &[Kind]) -> Vec<Turn> {
    let mut draw = Draw::new(seed);
    let turns = (u64::from(minutes) * 60 / TURN.as_secs()) as u32;
    let of = |company: Company| kinds.iter().copied().filter(move |kind| kind.company() == company);
    let mut mains = mains(&mut draw, turns, of(Company::Main).collect(), of(Company::Alone).collect());
    let mut deck: Vec<Kind> = Vec::new();
    let besides: Vec<Kind> = of(Company::Beside).collect();
    if mains.is_empty() && !besides.is_empty() {
        mains = vec![None; turns as usize];
    }

    let mut schedule = Vec::with_capacity(mains.len());
    let mut begun = 0;
    for main in mains {
        let is_alone = main.is_some_and(|main| main.company() == Company::Alone);
        if deck.len() < besides.len() && !is_alone {
            let mut more = besides.clone();
            draw.shuffle(&mut more);
            deck.extend(more);
        }
        let fits = |beside: &Kind| !is_alone && main.is_none_or(|main| main.allows(*beside));
        let beside = deck.iter().position(fits).map(|place| deck.remove(place));
        schedule.push(Turn { at: TURN * begun, main, beside, draw: draw.next() });
        begun += main.map_or(1, Kind::turns);
    }
    schedule
}

/// The faults that are never two at a time, in their order.
fn mains(draw: &mut Draw, turns: u32, mains: Vec<Kind>, alone: Vec<Kind>) -> Vec<Option<Kind>> {
    let length = |kinds: &[Kind]| kinds.iter().map(|kind| kind.turns()).sum::<u32>();
    let mut chosen: Vec<Kind> = mains.iter().copied().chain(alone.iter().copied()).collect();
    if length(&chosen) > turns {
        // Too little time for each: chance decides.
        draw.shuffle(&mut chosen);
        let mut left = turns;
        chosen.retain(|kind| {
            let fits = kind.turns() <= left;
            left -= if fits { kind.turns() } else { 0 };
            fits
        });
    } else {
        // Each once more as long as there is time, those that run alone last.
        let mut more = Vec::new();
        let mut left = turns - length(&chosen);
        while left > 0 {
            if more.is_empty() {
                more = alone.clone();
                let mut first = mains.clone();
                draw.shuffle(&mut first);
                more.extend(first);
            }
            let before = left;
            while let Some(kind) = more.pop() {
                if kind.turns() <= left {
                    left -= kind.turns();
                    chosen.push(kind);
                    break;
                }
            }
            if before == left && more.is_empty() && mains.is_empty() {
                break;
            }
        }
    }
    draw.shuffle(&mut chosen);
    chosen.into_iter().map(Some).collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    const SEEDS: u64 = 500;

    fn counts(schedule: &[Turn]) -> BTreeMap<Kind, usize> {
        let mut counts = BTreeMap::new();
        for kind in schedule.iter().flat_map(|turn| [turn.main, turn.beside]).flatten() {
            *counts.entry(kind).or_default() += 1;
        }
        counts
    }

    #[test]
    fn in_twenty_minutes_every_kind_comes_twice_and_those_that_run_alone_once() {
        for seed in 0..SEEDS {
            let schedule = draw(seed, 20, &Kind::all());
            let counts = counts(&schedule);
            for kind in Kind::all() {
                let least = if kind.company() == Company::Alone { 1 } else { 2 };
                let count = counts.get(&kind).copied().unwrap_or_default();
                assert!(count >= least, "seed {seed}: {kind} comes {count} times");
            }
            let end = schedule.iter().map(|turn| turn.at + TURN * turn.main.map_or(1, Kind::turns)).max();
            assert!(end.is_some_and(|end| end <= Duration::from_secs(20 * 60)), "seed {seed} ends at {end:?}");
        }
    }

    #[test]
    fn what_runs_alone_has_nothing_beside_it_and_nothing_begins_before_its_end() {
        for seed in 0..SEEDS {
            for minutes in [1, 2, 5, 20, 60] {
                let schedule = draw(seed, minutes, &Kind::all());
                for (turn, next) in schedule.iter().zip(schedule.iter().skip(1).map(Some).chain([None])) {
                    let main = turn.main.expect("a fault every turn");
                    assert!(main.company() != Company::Alone || turn.beside.is_none(), "seed {seed}: {turn:?}");
                    assert!(turn.beside.is_none_or(|beside| main.allows(beside)), "seed {seed}: {turn:?}");
                    assert!(next.is_none_or(|next| next.at == turn.at + TURN * main.turns()), "seed {seed}: {turn:?}");
                }
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_schedule_and_another_seed_another_one() {
        assert_eq!(draw(7, 20, &Kind::all()), draw(7, 20, &Kind::all()));
        assert_ne!(draw(7, 20, &Kind::all()), draw(8, 20, &Kind::all()));
    }

    #[test]
    fn a_short_run_is_full_of_different_kinds() {
        for seed in 0..SEEDS {
            let schedule = draw(seed, 2, &Kind::all());
            let length: u32 = schedule.iter().filter_map(|turn| turn.main).map(Kind::turns).sum();
            assert_eq!(length, 6, "seed {seed}");
            assert!(
                counts(&schedule).iter().filter(|(kind, _)| kind.company() != Company::Beside).all(|(_, n)| *n == 1)
            );
        }
    }

    #[test]
    fn a_few_kinds_fill_the_time_alone() {
        let kinds = [Kind::Kill("payment-svc"), Kind::Kill("kafka")];
        assert_eq!(counts(&draw(1, 2, &kinds)).values().sum::<usize>(), 6);
        assert_eq!(draw(1, 2, &[Kind::HostileBytes]).len(), 6);
        assert_eq!(draw(1, 2, &[Kind::RollingRestart]).len(), 2);
        assert_eq!(draw(1, 1, &[Kind::DiskFull]).len(), 1);
        assert!(draw(1, 1, &[]).is_empty());
    }
}
