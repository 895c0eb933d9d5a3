// SPDX-License-Identifier: Apache-2.0 OR MIT
// Copyright the Whimbrel authors

//! Who owns a guest: the state machines of a handoff. Pure.
//!
//! # The rule
//!
//! Every guest has one **owner** and an **epoch**. A host may run a guest only while it holds the
//! newest epoch. Moving a guest, and starting it on another host, is taking a newer one. An epoch
//! is consumed durably before it is offered, and never offered again.
//!
//! **At no instant may two hosts run the guest**, whatever messages are lost, late or repeated and
//! whichever daemon, engine, host or disk fails. And the guest is never lost, and never left
//! undecided.
//!
//! ```text
//!    source                                      target
//!    Offering  durable
//!              ------- Offer ----------------->  Receiving  durable; memory accounted,
//!              <------ Accepted ---------------             engine started, stopped
//!    (memory flows; the guest runs on the source)
//!    engine stops, sends the rest, says completed
//!              <------ Ready ------------------  Prepared: complete and equal
//!    the engine is asked once more, now
//!    CEDED     durable: THE COMMIT POINT; then the owner record beside the image
//!              ------- Cede (what it was) ---->  claim won; TAKEN durable;
//!                                                on the network; running if it ran
//!              <------ Started ----------------  Owned  durable
//!    Elsewhere durable; then the copy is destroyed
//! ```
//!
//! - **Before the commit point give up, past it retry.** Left of `Ceded` the source may break off
//!   at any moment and alone; the guest goes on as it was, with the epoch it had. From `Ceded` on,
//!   only the target's durable `Refused` or `Returned`, or a person, brings the copy back.
//! - **What may cede.** Only a driver that asks its engine at that moment, over the same live
//!   connection as the whole attempt, and hears *completed and stopped*. A restarted source has
//!   not seen that and breaks off.
//! - **Who comes back after `Ceded` comes back with a new epoch**, claimed like any other. So
//!   nothing that was said or written about the old one can be believed any more.
//! - **The target may refuse until `Taken`**, durably. From then on the guest is its own; it may
//!   still *return* it if its engine said no before the first instruction. An engine of which
//!   nobody can say whether it ran has crashed, on the target, and the guest's policy speaks there.
//! - **Only what is durable is told**, and only what is final is called owned: `Taken` answers
//!   "on its way".
//! - **A refusal that is not durable is none**: it is `Unwilling`, ends an offer and means nothing
//!   to a source that has ceded. Nor does `NoRecord`.
//! - **Messages may come twice, late or never.** Each carries its handoff. What is about a handoff
//!   that is not under way is answered from what is known for good (`history`).
//! - **What the guest was travels with `Cede`**: only a guest that ran is started, and a rollback
//!   restores exactly what was.
//! - **Claims** ([`disk`]) on shared storage decide between hosts that cannot hear each other. The
//!   ordinary handoff takes one, too.
//! - **Every start asks** ([`door`]).
//! - **Post-copy** cedes first and sends the rest of the memory then. The source keeps its half
//!   until its engine is drained; a refusal cannot bring the guest back, only boot it.
//!
//! # How to drive it
//!
//! [`ownership::Ownership`] is the whole decision about one guest on one host. `recover` it from
//! the ownership file and a look at the engine; feed it messages and [`effect::Event`]s; perform
//! the [`effect::Effect`]s it returns in order, each finished before the next. Take no input while
//! effects are being performed, except the answers of those that answer. Tell peers `answer()`
//! only then, too.
//!
//! # Where the specification was mended
//!
//! The checkers in `crates/sim` run these very machines and have found what was wrong with the
//! rules as first written; `docs/decisions/` says more:
//!
//! - A late `Offer` answered "busy" by a host that had meanwhile taken the guest was believed by
//!   the source, which came back: two copies. Hence `Unwilling`, and a host that has consumed the
//!   epoch on offer answers from its record instead.
//! - Epochs are skipped, so two claims for different epochs after the same owner both won. Hence
//!   a claim names the epoch it succeeds, and looks around after it was made.
//! - A host that was declared off and came back while it was being replaced passed the door before
//!   the other's claim. Hence a start after a reboot claims a new epoch.
//! - A target that was asked between *taken* and *started* said that it owned the guest, and then
//!   returned it to a source that had let go. Hence `Moving`.
//! - The owner record of a source that was slow named an owner that had lost the claim. Hence it
//!   counts only until a claim, or the host it names, says otherwise.

mod bytes;
pub mod disk;
pub mod door;
pub mod effect;
mod history;
pub mod message;
pub mod ownership;
pub mod record;
pub mod source;
pub mod target;
