//! The audit: what calls leave in it, what is kept, and how it is listed.

use deltalakedb_catalog_core::audit::{
    Act, Actor, AuditCursor, AuditEntry, AuditFilter, AuditOrder, AuditRow, action,
};
use deltalakedb_catalog_core::backend::{CatalogBackend, CatalogBackendExt, ImportEnd};
use deltalakedb_catalog_core::error::{CatalogError, PlainResult};
use deltalakedb_catalog_core::ids::{CommitToken, TableId, TimestampMs};
use deltalakedb_catalog_core::model::MirrorMode;

use super::cases;
use super::tables::not_found;
use crate::change::{Change, metadata, protocol};
use crate::env::{CaseResult, Env, fail, finish_import, name, retrying, together, v};

/// Whether it keeps an audit. If not, it must say so to each call.
async fn keeps_audit(env: &Env) -> CaseResult<bool> {
    if env.db().info().await?.keeps_audit {
        return Ok(true);
    }
    let filter = AuditFilter::default();
    let list = env.db().audit_list(&filter, AuditOrder::OldestFirst, None, 1).await.plain();
    let record = env.db().audit_record(&entry(1, "grant")).await.plain();
    match (list, record) {
        (Err(CatalogError::Unsupported(_)), Err(CatalogError::Unsupported(_))) => Ok(false),
        other => fail(format_args!("no audit is kept, and not said so: {other:?}")),
    }
}

fn entry(at: i64, action: &str) -> AuditEntry {
    AuditEntry {
        at: TimestampMs(at),
        action: action.to_owned(),
        table_id: None,
        table_name: None,
        by: Actor::default(),
        detail: None,
        token: None,
    }
}

/// All rows, a page at a time.
async fn listed(
    db: &dyn CatalogBackend,
    filter: &AuditFilter,
    order: AuditOrder,
    limit: usize,
) -> CaseResult<Vec<AuditRow>> {
    let (mut all, mut after): (Vec<AuditRow>, Option<AuditCursor>) = (Vec::new(), None);
    loop {
        let page = retrying(|| db.audit_list(filter, order, after, limit)).await?;
        assert!(page.items.len() <= limit, "{} items, limit {limit}", page.items.len());
        assert!(page.next.is_none() || !page.items.is_empty(), "an empty page is the last one");
        if let (Some(next), Some(last)) = (page.next, page.items.last()) {
            assert_eq!(next, last.cursor(), "the cursor is that of the last item");
        }
        all.extend(page.items);
        match page.next {
            None => return Ok(all),
            next => after = next,
        }
    }
}

async fn all(env: &Env) -> CaseResult<Vec<AuditRow>> {
    listed(env.db(), &AuditFilter::default(), AuditOrder::OldestFirst, 100).await
}

fn by(user: &str) -> Actor {
    Actor {
        user: Some(user.to_owned()),
        origin: Some("host-7.example".to_owned()),
        program: Some("suite 1.0".to_owned()),
    }
}

fn act(env: &Env, user: &str) -> Act {
    Act { at: env.now(), by: by(user) }
}

/// Whether the last row says this, and nothing more was added to so many rows before.
async fn last_is(
    env: &Env,
    before: usize,
    act: &Act,
    action: &str,
    (id, name): (TableId, &str),
    detail: Option<serde_json::Value>,
) -> CaseResult {
    let rows = all(env).await?;
    assert_eq!(rows.len(), before + 1, "{rows:?}");
    // Times of a test may be those of rows before.
    let row = rows.iter().max_by_key(|row| row.id).cloned().expect("a row");
    assert!(row.id > 0);
    let said = row.entry.detail.as_deref().map(serde_json::from_str).transpose();
    assert_eq!(said.expect("JSON"), detail);
    let want = AuditEntry {
        at: act.at,
        action: action.to_owned(),
        table_id: Some(id),
        table_name: Some(name.to_owned()),
        by: act.by.clone(),
        detail: row.entry.detail.clone(),
        token: None,
    };
    assert_eq!(row.entry, want);
    Ok(())
}

cases! {
    /// info 3: it says whether it keeps an audit; one that keeps none says so to each call.
    async fn it_says_whether_it_keeps_an_audit(env: &Env) -> CaseResult {
        keeps_audit(env).await.map(drop)
    }

    /// drop_table 4, undrop_table 3: each success leaves one row, and a call that fails or is repeated none.
    async fn drops_and_undrops_leave_a_row_each(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let id = env.create("t").await?;
        assert_eq!(all(env).await?, Vec::new(), "a commit leaves no row");
        let drop = act(env, "ann \"o'b\" 😀");
        env.db().drop_table(id, &drop).await?;
        last_is(env, 0, &drop, action::TABLE_DROP, (id, "ns.t"), None).await?;
        // Its answer was lost, say.
        not_found("again", env.db().drop_table(id, &drop).await)?;
        let undrop = act(env, "bob");
        env.create("t").await?;
        let taken = env.db().undrop_table(id, &name("t"), &undrop).await.plain();
        assert!(matches!(taken, Err(CatalogError::TableExists(_))), "{taken:?}");
        assert_eq!(all(env).await?.len(), 1);
        env.db().undrop_table(id, &name("u"), &undrop).await?;
        let from = Some(serde_json::json!({ "from": "ns.t" }));
        last_is(env, 1, &undrop, action::TABLE_UNDROP, (id, "ns.u"), from).await?;
        not_found("again", env.db().undrop_table(id, &name("u"), &undrop).await)?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        let undrop = act(env, "cal");
        env.db().undrop_table(id, &name("u"), &undrop).await?;
        last_is(env, 3, &undrop, action::TABLE_UNDROP, (id, "ns.u"), None).await?;
        // Who acts is text that may be refused: then nothing was done.
        let bad = act(env, "a\0b");
        let refused = env.db().drop_table(id, &bad).await.plain();
        assert!(matches!(refused, Err(CatalogError::InvalidInput(_))), "{refused:?}");
        assert_eq!(env.record(id).await?.state.as_str(), "active");
        assert_eq!(all(env).await?.len(), 4);
        Ok(())
    }

    /// drop_table 4: of drops at the same time one succeeds, and one row is there.
    async fn racing_drops_leave_one_row(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let id = env.create("t").await?;
        let calls = (0..8).map(|n| {
            let (db, act) = (env.shared(), act(env, &format!("user {n}")));
            async move { retrying(|| db.drop_table(id, &act)).await.map(|_| act) }
        });
        let answers = together(calls).await?;
        let mut won = answers.into_iter().filter_map(Result::ok);
        let (first, second) = (won.next(), won.next());
        assert!(second.is_none(), "{second:?}");
        let rows = all(env).await?;
        let users: Vec<_> = rows.iter().map(|row| row.entry.by.clone()).collect();
        assert_eq!(users, first.map(|act| act.by).into_iter().collect::<Vec<_>>());
        Ok(())
    }

    /// mirror_set_mode 5, mirror_retry 4: a row for each change of the mode, and for each retry.
    async fn changes_of_publishing_leave_rows(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let id = env.create("t").await?;
        let table = (id, "ns.t");
        let modes = |from: &str, to: &str| Some(serde_json::json!({ "from": from, "to": to }));
        let off = act(env, "ann");
        env.db().mirror_set_mode(id, MirrorMode::Off, &off).await?;
        last_is(env, 0, &off, action::MIRROR_MODE, table, modes("active", "off")).await?;
        // It is off already, and stays off.
        env.db().mirror_set_mode(id, MirrorMode::Off, &act(env, "ann")).await?;
        env.db().mirror_set_mode(id, MirrorMode::Diverged, &act(env, "worker")).await?;
        assert_eq!(all(env).await?.len(), 1);
        let on = act(env, "bob");
        env.db().mirror_set_mode(id, MirrorMode::Active, &on).await?;
        last_is(env, 1, &on, action::MIRROR_MODE, table, modes("off", "active")).await?;
        let seen = act(env, "worker");
        env.db().mirror_set_mode(id, MirrorMode::Diverged, &seen).await?;
        last_is(env, 2, &seen, action::MIRROR_MODE, table, modes("active", "diverged")).await?;
        let retry = act(env, "cal");
        let due = env.db().mirror_retry(id, &retry).await?;
        let detail = Some(serde_json::json!({ "versions": due }));
        last_is(env, 3, &retry, action::MIRROR_RETRY, table, detail).await?;
        env.db().drop_table(id, &act(env, "ann")).await?;
        not_found("mode", env.db().mirror_set_mode(id, MirrorMode::Off, &off).await)?;
        not_found("retry", env.db().mirror_retry(id, &retry).await)?;
        assert_eq!(all(env).await?.len(), 5);
        Ok(())
    }

    /// import_finish 6, import_abort 2, audit_list 3: rows about imports stay when the table is gone.
    async fn imports_leave_rows_that_stay(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let new = env.new_table("t");
        env.db().import_begin(&new, v(0), true, env.now()).await?;
        let finish = act(env, "ann");
        let early = env.db().import_finish(new.id, ImportEnd::default(), &finish).await.plain();
        assert!(matches!(early, Err(CatalogError::Corrupt(_))), "{early:?}");
        let abort = act(env, "bob");
        env.db().import_abort(new.id, &abort).await?;
        last_is(env, 0, &abort, action::IMPORT_ABORT, (new.id, "ns.t"), None).await?;
        not_found("again", env.db().import_abort(new.id, &abort).await)?;
        let new = env.new_table("t");
        env.db().import_begin(&new, v(0), true, env.now()).await?;
        let first = Change::files(["a"]).protocol(protocol(2)).metadata(metadata("t")).imported(v(0), 1)?;
        env.db().import_commits(new.id, vec![first].into()).await?;
        env.db().import_finish(new.id, ImportEnd::default(), &finish).await?;
        let detail = Some(serde_json::json!({ "version": 0, "state": "active" }));
        last_is(env, 1, &finish, action::IMPORT_FINISH, (new.id, "ns.t"), detail).await?;
        not_found("again", finish_import(env.db(), new.id, env.now()).await)?;
        assert_eq!(all(env).await?.len(), 2);
        Ok(())
    }

    /// audit_record 1: every text comes back exactly.
    async fn what_is_recorded_comes_back_exactly(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let long = "😀".repeat(AuditEntry::MAX_TEXT_CHARS);
        let longest_name = format!("{}.{}", "é".repeat(255), "n".repeat(255));
        let texts = ["a", "A", "o'b \"x\" \\ `y` %_", "a  ", " a", "ß/ss", "--; DROP TABLE", &long];
        let (largest, mut want) = ("x".repeat(AuditEntry::MAX_DETAIL_BYTES - 40), Vec::new());
        for (n, text) in (0..).zip(texts) {
            let recorded = AuditEntry {
                table_id: (n % 2 == 0).then_some(env.new_table("x").id),
                table_name: Some(longest_name.clone()),
                by: Actor {
                    user: Some(text.to_owned()),
                    origin: Some(n.to_string()),
                    program: Some(text.to_owned()),
                },
                detail: Some(serde_json::json!({ "text": largest, "\0": n }).to_string()),
                token: Some(CommitToken::new(format!("Token-{n}"))?),
                ..entry(1_000 + n, "some.action-of_1")
            };
            let recorded = if n == 3 { entry(1_000 + n, "a") } else { recorded };
            env.db().audit_record(&recorded).await?;
            want.push(recorded);
        }
        let rows = all(env).await?;
        let ids: std::collections::BTreeSet<i64> = rows.iter().map(|row| row.id).collect();
        assert_eq!(ids.len(), want.len(), "each has an id of its own");
        assert_eq!(rows.into_iter().map(|row| row.entry).collect::<Vec<_>>(), want);
        Ok(())
    }

    /// audit_record 2: a token is written once, whatever the second entry says; tokens differ by case.
    async fn an_entry_that_is_repeated_is_written_once(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let token = |text: &str| CommitToken::new(text).map(Some);
        let first = AuditEntry { token: token("once")?, ..entry(5, "first") };
        env.db().audit_record(&first).await?;
        env.db().audit_record(&AuditEntry { token: token("once")?, ..entry(6, "second") }).await?;
        env.db().audit_record(&AuditEntry { token: token("Once")?, ..entry(7, "other") }).await?;
        for _ in 0..2 {
            env.db().audit_record(&entry(8, "no.token")).await?;
        }
        let calls = (0..8).map(|_| {
            let (db, entry) = (env.shared(), AuditEntry { token: token("race").ok().flatten(), ..entry(9, "race") });
            async move { retrying(|| db.audit_record(&entry)).await }
        });
        for answer in together(calls).await? {
            answer?;
        }
        let actions: Vec<String> = all(env).await?.into_iter().map(|row| row.entry.action).collect();
        assert_eq!(actions, ["first", "other", "no.token", "no.token", "race"]);
        Ok(())
    }

    /// audit_record 3: what is out of bounds is refused, and nothing is written.
    async fn an_entry_out_of_bounds_is_refused(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let user = |user: &str| AuditEntry { by: by(user), ..entry(1, "a") };
        let detail = |text: &str| AuditEntry { detail: Some(text.to_owned()), ..entry(1, "a") };
        let name = "n".repeat(AuditEntry::MAX_TEXT_CHARS + 1);
        for bad in [
            entry(1, ""),
            entry(1, "Drop table"),
            user("a\0b"),
            user("a\nb"),
            user(""),
            user(&name),
            AuditEntry { table_name: Some(name.clone()), ..entry(1, "a") },
            detail("{"),
            detail("[1]"),
        ] {
            match env.db().audit_record(&bad).await.plain() {
                Err(CatalogError::InvalidInput(_)) => {}
                other => return fail(format_args!("{bad:?}: {other:?}")),
            }
        }
        assert_eq!(all(env).await?, Vec::new());
        let filter = AuditFilter { actions: vec!["a".to_owned(); 1_001], ..AuditFilter::default() };
        match env.db().audit_list(&filter, AuditOrder::OldestFirst, None, 1).await.plain() {
            Err(CatalogError::InvalidInput(_)) => Ok(()),
            other => fail(format_args!("{other:?}")),
        }
    }

    /// audit_list 1: by time and id in both orders, in pages of any size, each row once.
    async fn rows_are_listed_in_both_orders_in_pages(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        assert_eq!(all(env).await?, Vec::new());
        // Many of one time, and not in the order of their times.
        for at in [30, 10, 20, 20, 20, 10, 40, 20] {
            env.db().audit_record(&entry(at, "a")).await?;
        }
        let filter = AuditFilter::default();
        let mut want = listed(env.db(), &filter, AuditOrder::OldestFirst, 100).await?;
        let cursors: Vec<AuditCursor> = want.iter().map(AuditRow::cursor).collect();
        assert!(cursors.is_sorted(), "{cursors:?}");
        let times: Vec<i64> = want.iter().map(|row| row.entry.at.0).collect();
        assert_eq!(times, [10, 10, 20, 20, 20, 20, 30, 40]);
        for order in [AuditOrder::OldestFirst, AuditOrder::NewestFirst] {
            for limit in [1, 2, 3, 8, 9] {
                assert_eq!(listed(env.db(), &filter, order, limit).await?, want, "{order:?} {limit}");
            }
            want.reverse();
        }
        Ok(())
    }

    /// audit_list 2: each condition holds, text byte for byte, times from since to before until.
    async fn rows_are_listed_by_table_action_user_and_time(env: &Env) -> CaseResult {
        if !keeps_audit(env).await? {
            return Ok(());
        }
        let (one, two) = (env.new_table("x").id, env.new_table("x").id);
        let tables = [(Some(one), Some("ns.t")), (Some(two), Some("ns.T")), (None, Some("ns.t")), (None, None)];
        let users = [None, Some("ann"), Some("Ann"), Some("ann "), Some("änn"), Some("a%")];
        let mut entries = Vec::new();
        for (n, (table_id, table_name)) in (0..).zip(tables) {
            for (m, user) in (0..).zip(users) {
                entries.push(AuditEntry {
                    table_id,
                    table_name: table_name.map(str::to_owned),
                    by: Actor { user: user.map(str::to_owned), ..Actor::default() },
                    ..entry(100 + 10 * n + m, ["a", "a.b", "b"][usize::try_from(m % 3).unwrap_or(0)])
                });
            }
        }
        for entry in &entries {
            env.db().audit_record(entry).await?;
        }
        let text = |text: &str| Some(text.to_owned());
        let none = AuditFilter::default;
        let filters = [
            none(),
            AuditFilter { table_ids: vec![one], ..none() },
            AuditFilter { table_ids: vec![one, two], ..none() },
            AuditFilter { table_ids: vec![one], user: text("ann"), ..none() },
            AuditFilter { table_name: text("ns.t"), ..none() },
            AuditFilter { table_name: text("ns.t "), ..none() },
            AuditFilter { table_ids: vec![two], table_name: text("ns.t"), ..none() },
            AuditFilter { actions: vec!["a".to_owned()], ..none() },
            AuditFilter { actions: vec!["a.b".to_owned(), "b".to_owned(), "o'b".to_owned()], ..none() },
            AuditFilter { user: text("ann"), ..none() },
            AuditFilter { user: text("ann "), ..none() },
            AuditFilter { user: text("a%"), ..none() },
            AuditFilter { since: Some(TimestampMs(110)), ..none() },
            AuditFilter { until: Some(TimestampMs(110)), ..none() },
            AuditFilter { since: Some(TimestampMs(110)), until: Some(TimestampMs(111)), ..none() },
            AuditFilter { since: Some(TimestampMs(200)), until: Some(TimestampMs(100)), ..none() },
            AuditFilter {
                table_ids: vec![one, two],
                table_name: text("ns.t"),
                actions: vec!["a".to_owned(), "b".to_owned()],
                user: text("Ann"),
                since: Some(TimestampMs(101)),
                until: Some(TimestampMs(125)),
            },
        ];
        for filter in filters {
            let mut want: Vec<&AuditEntry> = entries.iter().filter(|e| filter.matches(e)).collect();
            for (order, limit) in [(AuditOrder::OldestFirst, 100), (AuditOrder::NewestFirst, 4)] {
                let rows = listed(env.db(), &filter, order, limit).await?;
                let found: Vec<&AuditEntry> = rows.iter().map(|row| &row.entry).collect();
                assert_eq!(found, want, "{filter:?} {order:?}");
                want.reverse();
            }
        }
        Ok(())
    }
}
