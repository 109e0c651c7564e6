//! I4: money and stock are conserved, in flight too: each database in one snapshot.

use std::collections::{BTreeMap, HashMap};

use super::World;
use super::report::Finding;

pub(super) fn check(world: &World) -> Finding {
    let mut finding = Finding::new("I4", "money and stock are conserved in every snapshot");
    money(world, &mut finding);
    stock(world, &mut finding);
    finding
}

fn money(world: &World, finding: &mut Finding) {
    let mut accounts: BTreeMap<(&str, &str), i128> = BTreeMap::new();
    for entry in &world.payments.ledger {
        *accounts.entry((&entry.currency, &entry.debit_account)).or_default() += i128::from(entry.amount);
        *accounts.entry((&entry.currency, &entry.credit_account)).or_default() -= i128::from(entry.amount);
        finding.require(entry.amount > 0 && entry.debit_account != entry.credit_account, || {
            format!("ledger entry {} of order {} moves nothing", entry.kind, entry.order_id)
        });
    }
    let mut sums: BTreeMap<&str, i128> = BTreeMap::new();
    for ((currency, _), balance) in &accounts {
        *sums.entry(currency).or_default() += balance;
    }
    for (currency, sum) in &sums {
        finding.require(*sum == 0, || format!("the ledger sums to {sum} {currency}"));
    }

    // What customers owe is what stays charged.
    let mut charged: BTreeMap<&str, i128> = BTreeMap::new();
    for payment in world.payments.payments.values().filter(|payment| payment.state == "CHARGED") {
        if let (Some(currency), Some(amount)) = (&payment.currency, payment.amount) {
            *charged.entry(currency).or_default() += i128::from(amount);
        }
    }
    for currency in sums.keys().chain(charged.keys()).collect::<std::collections::BTreeSet<_>>() {
        let booked = accounts.get(&(*currency, "receivable")).copied().unwrap_or_default();
        let owed = charged.get(*currency).copied().unwrap_or_default();
        finding.require(booked == owed, || {
            format!("payments stay charged over {owed} {currency} but the ledger has {booked} receivable")
        });
    }
    finding.count("ledger entries", world.payments.ledger.len());
    finding.count("currencies", sums.len());
}

fn stock(world: &World, finding: &mut Finding) {
    let mut held: HashMap<&str, (i64, i64)> = HashMap::new();
    for reservation in world.inventory.reservations.values() {
        for (sku, quantity) in reservation.skus.iter().zip(&reservation.quantities) {
            let (reserved, shipped) = held.entry(sku).or_default();
            match reservation.state.as_str() {
                "RESERVED" => *reserved += quantity,
                "SHIPPED" => *shipped += quantity,
                _ => {}
            }
        }
    }
    for stock in &world.inventory.stock {
        let (sku, sum) = (&stock.sku, stock.available + stock.reserved + stock.shipped);
        finding.require(sum == stock.initial + stock.adjusted, || {
            format!(
                "{sku}: available + reserved + shipped = {sum}, initial + adjusted = {}",
                stock.initial + stock.adjusted
            )
        });
        finding.require(stock.available >= 0 && stock.reserved >= 0 && stock.shipped >= 0, || {
            format!("{sku}: {} available, {} reserved, {} shipped", stock.available, stock.reserved, stock.shipped)
        });
        finding.require(stock.adjusted == stock.adjustments, || {
            format!("{sku} was adjusted by {} but the adjustments sum to {}", stock.adjusted, stock.adjustments)
        });
        let (reserved, shipped) = held.remove(sku.as_str()).unwrap_or_default();
        finding.require((stock.reserved, stock.shipped) == (reserved, shipped), || {
            format!(
                "{sku}: {} reserved and {} shipped, but orders hold {reserved} and {shipped}",
                stock.reserved, stock.shipped
            )
        });
    }
    for (sku, (reserved, shipped)) in held {
        finding.require((reserved, shipped) == (0, 0), || {
            format!("orders hold {reserved} and {shipped} of {sku}, which is not in stock")
        });
    }
    finding.count("stock units", world.inventory.stock.len());
}
