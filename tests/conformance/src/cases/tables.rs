//! The life of tables: created, found, listed, dropped, brought back.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CommitOutcome, Rejection, TableFilter};
use deltalakedb_catalog_core::error::CatalogError;
use deltalakedb_catalog_core::error::PlainResult;
use deltalakedb_catalog_core::ids::{At, TableId, TableName, TableRef};
use deltalakedb_catalog_core::model::{BaseChunk, MirrorMode, TableRecord, TableState};

use super::cases;
use crate::change::Change;
use crate::env::{
    CaseResult, Env, Halt, committed, fail, finish_import, name, retrying, together, v,
};

async fn listed(env: &Env, filter: &TableFilter, limit: usize) -> CaseResult<Vec<TableRecord>> {
    let mut out = Vec::new();
    let mut after = None;
    loop {
        let page = env.db().list_tables(filter, after.as_ref(), limit).await?;
        assert!(page.items.len() <= limit, "{} items, limit {limit}", page.items.len());
        assert!(page.next.is_none() || !page.items.is_empty(), "an empty page is the last one");
        if let (Some(next), Some(last)) = (&page.next, page.items.last()) {
            assert_eq!(*next, (last.name.clone(), last.id), "the cursor is that of the last item");
        }
        out.extend(page.items);
        match page.next {
            None => return Ok(out),
            next => after = next,
        }
    }
}

fn names(tables: &[TableRecord]) -> Vec<String> {
    tables.iter().map(|t| t.name.to_string()).collect()
}

/// Creates a table of any name.
async fn create(env: &Env, name: TableName) -> CaseResult<TableId> {
    let mut new = env.new_table("x");
    new.name = name;
    let id = new.id;
    committed(env.commit(vec![Change::new().create(new)?]).await?)?;
    Ok(id)
}

pub(super) fn not_found<T: std::fmt::Debug>(
    what: &str,
    answer: Result<T, impl Into<CatalogError>>,
) -> CaseResult {
    match answer.plain() {
        Err(CatalogError::TableNotFound(_)) => Ok(()),
        other => fail(format_args!("{what}: expected TableNotFound, got {other:?}")),
    }
}

cases! {
    /// get_table 1: a created table is found by name and by id, with all that it was created with.
    async fn a_created_table_is_found_by_name_and_id(env: &Env) -> CaseResult {
        let mut new = env.new_table("sales");
        "s3://bucket/with space/and%20percent/ü".clone_into(&mut new.location);
        new.storage_options.insert("region".to_owned(), "eu-central-1".to_owned());
        new.storage_options.insert("empty".to_owned(), String::new());
        let mut request = env.request(vec![Change::new().create(new.clone())?]);
        let written = committed(env.db().commit(request.clone()).await?)?;
        let record = env.record(new.id).await?;
        let want = TableRecord {
            id: new.id,
            name: new.name.clone(),
            location: new.location.clone(),
            storage_options: new.storage_options.clone(),
            state: TableState::Active,
            created_at: request.now,
            dropped_at: None,
            head: Some(v(0)),
            head_timestamp: Some(written[0].timestamp),
            base_version: v(0),
            barrier_version: v(0),
            mirror: MirrorMode::Active,
            published_version: None,
        };
        assert_eq!(record, want);
        assert_eq!(env.db().get_table(&TableRef::Name(new.name)).await?, Some(want));

        let mut off = env.new_table("off");
        off.mirror = MirrorMode::Off;
        request = env.request(vec![Change::new().create(off.clone())?]);
        committed(env.db().commit(request).await?)?;
        assert_eq!(env.record(off.id).await?.mirror, MirrorMode::Off);
        Ok(())
    }

    /// get_table 1: none for a name or an id that was never there.
    async fn an_unknown_table_is_none(env: &Env) -> CaseResult {
        env.create("t").await?;
        assert_eq!(env.db().get_table(&TableRef::Name(name("u"))).await?, None);
        assert_eq!(env.db().get_table(&TableRef::Id(env.id())).await?, None);
        Ok(())
    }

    /// contract 5: every method on a table that does not exist is `TableNotFound`.
    async fn every_verb_on_an_unknown_table_is_not_found(env: &Env) -> CaseResult {
        env.create("t").await?;
        let (db, id, now) = (env.db(), env.id(), env.now());
        not_found("snapshot", db.snapshot(&TableRef::Id(id), At::Head).await)?;
        not_found("snapshot", db.snapshot(&TableRef::Name(name("u")), At::Head).await)?;
        not_found("list_files", db.list_files(id, v(0), None, 1).await)?;
        not_found("list_tombstones", db.list_tombstones(id, v(0), now, None, 1).await)?;
        not_found("app_transactions", db.app_transactions(id, v(0)).await)?;
        not_found("domain_metadata", db.domain_metadata(id, v(0)).await)?;
        let filter = deltalakedb_catalog_core::backend::CommitFilter::default();
        not_found("list_commits", db.list_commits(id, &filter, None, 1).await)?;
        not_found("read_bodies", db.read_bodies(id, v(0), v(9), 1).await)?;
        not_found("drop_table", db.drop_table(id, &Act::at(now)).await)?;
        not_found("undrop_table", db.undrop_table(id, &name("u"), &Act::default()).await)?;
        not_found("import_base", db.import_base(id, 0, 0, BaseChunk::default(), None).await)?;
        not_found("import_commits", db.import_commits(id, Vec::new().into()).await)?;
        not_found("import_finish", finish_import(db, id, now).await)?;
        not_found("import_abort", db.import_abort(id, &Act::default()).await)?;
        not_found("mirror_retry", db.mirror_retry(id, &Act::at(now)).await)?;
        not_found("mirror_set_mode", db.mirror_set_mode(id, MirrorMode::Off, &Act::at(now)).await)?;
        let outcome = env.commit(vec![Change::new().exactly(id, v(0))?]).await?;
        let reason = Rejection::TableNotFound(id);
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        Ok(())
    }

    /// list_tables 1: by (namespace, name, id), whole at every page size, `next` none at the end.
    async fn tables_are_listed_in_order_at_every_page_size(env: &Env) -> CaseResult {
        let mut want = Vec::new();
        for (namespace, table) in
            [("b", "z"), ("a", "y"), ("a.c", "k"), ("a", "x"), ("b", "A"), ("ab", "a"), ("B", "a")]
        {
            let name = TableName::new(namespace, table)?;
            create(env, name.clone()).await?;
            want.push(name);
        }
        want.sort();
        let want: Vec<String> = want.iter().map(ToString::to_string).collect();
        for limit in 1..=8 {
            assert_eq!(names(&listed(env, &TableFilter::default(), limit).await?), want);
        }
        let all = env.db().list_tables(&TableFilter::default(), None, 7).await?;
        assert_eq!((all.items.len(), all.next), (7, None), "an exactly full page has no next");
        Ok(())
    }

    /// list_tables 2: a namespace is matched exactly: no prefix, no pattern, no change of case.
    async fn the_namespace_filter_is_exact(env: &Env) -> CaseResult {
        for namespace in ["n", "N", "n.m", "n%", "n_", "nm"] {
            create(env, TableName::new(namespace, "t")?).await?;
        }
        for namespace in ["n", "N", "n.m", "n%", "n_", "nm"] {
            let filter = TableFilter { namespace: Some(namespace.to_owned()), state: None };
            assert_eq!(names(&listed(env, &filter, 2).await?), [format!("{namespace}.t")]);
        }
        let filter = TableFilter { namespace: Some("%".to_owned()), state: None };
        assert_eq!(names(&listed(env, &filter, 2).await?), Vec::<String>::new());
        Ok(())
    }

    /// list_tables 2: by default active tables; dropped and importing ones by their state.
    async fn the_state_filter_tells_states_apart(env: &Env) -> CaseResult {
        let a = env.create("a").await?;
        env.create("b").await?;
        let importing = env.new_table("c");
        env.db().import_begin(&importing, v(0), true, env.now()).await?;
        env.db().drop_table(a, &Act::at(env.now())).await?;
        for (state, want) in [
            (None, "ns.b"),
            (Some(TableState::Active), "ns.b"),
            (Some(TableState::Dropped), "ns.a"),
            (Some(TableState::Importing), "ns.c"),
        ] {
            let filter = TableFilter { namespace: Some("ns".to_owned()), state };
            assert_eq!(names(&listed(env, &filter, 1).await?), [want], "{state:?}");
        }
        Ok(())
    }

    /// contract 7: names are compared byte for byte: case, accents and composition tell them apart.
    async fn names_are_compared_byte_for_byte(env: &Env) -> CaseResult {
        let distinct = ["t", "T", "e", "é", "e\u{301}", "ß", "ss", "ı", "i", "a b", "a\u{a0}b"];
        let mut ids = Vec::new();
        for table in distinct {
            ids.push(env.create(table).await?);
        }
        for (table, id) in distinct.iter().zip(ids) {
            let found = env.db().get_table(&TableRef::Name(name(table))).await?;
            assert_eq!(found.map(|t| (t.id, t.name)), Some((id, name(table))), "{table:?}");
        }
        Ok(())
    }

    /// drop_table 3: the name becomes free, the rows stay and are read by id.
    async fn a_dropped_table_is_hidden_and_its_rows_stay(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a", "b"])).await?;
        env.write(id, Change::files(["c"])).await?;
        let before = env.dump(id).await?;
        let now = env.now();
        let dropped = env.db().drop_table(id, &Act::at(now)).await?;
        assert_eq!((dropped.state, dropped.dropped_at), (TableState::Dropped, Some(now)));
        assert_eq!(dropped.name, name("t"));
        assert_eq!(env.record(id).await?, dropped);
        assert_eq!(env.db().get_table(&TableRef::Name(name("t"))).await?, None);
        not_found("by name", env.db().snapshot(&TableRef::Name(name("t")), At::Head).await)?;
        let after = env.dump(id).await?;
        assert_eq!((after.files, after.bodies), (before.files, before.bodies));
        assert_eq!(after.commits, before.commits);
        Ok(())
    }

    /// drop_table 2: `TableNotFound` unless the table is active.
    async fn only_an_active_table_can_be_dropped(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        not_found("again", env.db().drop_table(id, &Act::at(env.now())).await)?;
        let importing = env.new_table("i");
        env.db().import_begin(&importing, v(0), true, env.now()).await?;
        not_found("importing", env.db().drop_table(importing.id, &Act::at(env.now())).await)
    }

    /// note_change 1: what another handle did is seen after it was told, by every read of a table's row.
    async fn a_change_that_was_told_is_seen(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let [here, there] = env.two_handles().await?;
        // What a view remembers, it remembers now.
        assert_eq!(here.get_table(&TableRef::Id(id)).await?.and_then(|table| table.head), Some(v(0)));
        here.snapshot(&TableRef::Name(name("t")), At::Head).await?;
        let request = env.request(vec![Change::files(["x"]).append(id, v(0))?]);
        committed(there.commit(request).await?)?;
        here.note_change(id);
        assert_eq!(here.get_table(&TableRef::Id(id)).await?.and_then(|table| table.head), Some(v(1)));
        assert_eq!(here.snapshot(&TableRef::Name(name("t")), At::Head).await?.version, v(1));
        there.drop_table(id, &Act::at(env.now())).await?;
        here.note_change(id);
        assert_eq!(here.get_table(&TableRef::Name(name("t"))).await?, None);
        // Of a table that does not exist there is nothing to forget.
        here.note_change(TableId(uuid::Uuid::nil()));
        Ok(())
    }

    /// drop_table 1: a commit after a drop is rejected and writes nothing.
    async fn a_commit_after_a_drop_is_rejected(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        for part in
            [Change::files(["a"]).exactly(id, v(0))?, Change::files(["a"]).append(id, v(0))?]
        {
            let reason = Rejection::TableNotFound(id);
            let outcome = env.commit(vec![part]).await?;
            assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        }
        assert_eq!(env.head(id).await?, v(0));
        Ok(())
    }

    /// drop_table 1: commits and a drop are serial: what was acknowledged is all there is.
    async fn a_drop_among_commits_is_serial(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let handles = env.two_handles().await?;
        let writers: Vec<_> = (0..4)
            .map(|w: usize| {
                let db = handles[w % 2].clone();
                let requests: Vec<_> = (0..20)
                    .map(|i| {
                        let change = Change::files([format!("{w}-{i}")]);
                        change.append(id, v(0)).map(|part| env.request(vec![part]))
                    })
                    .collect();
                tokio::spawn(async move {
                    let mut done: usize = 0;
                    for request in requests {
                        let request = request?;
                        match retrying(|| db.commit(request.clone())).await? {
                            CommitOutcome::Committed(_) => done += 1,
                            CommitOutcome::Rejected {
                                reason: Rejection::TableNotFound(_), ..
                            } => break,
                            other => return fail(format_args!("{other:?}")),
                        }
                    }
                    Ok::<usize, Halt>(done)
                })
            })
            .collect();
        let now = env.now();
        let act = Act::at(now);
        let at_drop = retrying(|| handles[1].drop_table(id, &act)).await?;
        let mut acknowledged = 0;
        for writer in writers {
            acknowledged += writer.await??;
        }
        assert_eq!(env.record(id).await?, at_drop, "nothing was written after the drop");
        let head = env.head(id).await?;
        assert_eq!(usize::try_from(head.get()), Ok(acknowledged));
        assert_eq!(env.files(id, head).await?.len(), acknowledged);
        Ok(())
    }

    /// undrop_table 2: back under its old name, with everything it had, and writable.
    async fn undrop_brings_everything_back(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        let before = env.dump(id).await?;
        env.db().drop_table(id, &Act::at(env.now())).await?;
        let back = env.db().undrop_table(id, &name("t"), &Act::default()).await?;
        assert_eq!(back, before.record);
        assert_eq!(env.dump(id).await?, before);
        env.write(id, Change::files(["b"])).await?;
        assert_eq!(env.paths(id, v(1)).await?, ["a", "b"]);
        Ok(())
    }

    /// undrop_table 1: under a new name when the old one is taken; `TableExists` for a taken one.
    async fn undrop_under_a_taken_name_is_refused(env: &Env) -> CaseResult {
        let old = env.create_with("t", Change::files(["old"])).await?;
        env.db().drop_table(old, &Act::at(env.now())).await?;
        let new = env.create("t").await?;
        match env.db().undrop_table(old, &name("t"), &Act::default()).await.plain() {
            Err(CatalogError::TableExists(taken)) => assert_eq!(taken, name("t")),
            other => return fail(format_args!("{other:?}")),
        }
        let importing = env.new_table("i");
        env.db().import_begin(&importing, v(0), true, env.now()).await?;
        match env.db().undrop_table(old, &name("i"), &Act::default()).await.plain() {
            Err(CatalogError::TableExists(_)) => {}
            other => return fail(format_args!("the name of an import: {other:?}")),
        }
        assert_eq!(env.record(old).await?.state, TableState::Dropped);
        let back = env.db().undrop_table(old, &name("t_old"), &Act::default()).await?;
        assert_eq!((back.id, back.name, back.dropped_at), (old, name("t_old"), None));
        let found = env.db().get_table(&TableRef::Name(name("t"))).await?;
        assert_eq!(found.map(|t| t.id), Some(new));
        Ok(())
    }

    /// undrop_table 1: `TableNotFound` unless the table is dropped.
    async fn only_a_dropped_table_can_be_undropped(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        not_found("active", env.db().undrop_table(id, &name("u"), &Act::default()).await)?;
        let importing = env.new_table("i");
        env.db().import_begin(&importing, v(0), true, env.now()).await?;
        not_found("importing", env.db().undrop_table(importing.id, &name("u"), &Act::default()).await)
    }

    /// drop_table 3: a name can be used again and again; all of its dropped tables stay.
    async fn a_name_can_be_reused(env: &Env) -> CaseResult {
        let mut ids = Vec::new();
        for i in 0..4 {
            let id = env.create_with("t", Change::files([format!("f{i}")])).await?;
            env.db().drop_table(id, &Act::at(env.now())).await?;
            ids.push(id);
        }
        let filter = TableFilter { namespace: None, state: Some(TableState::Dropped) };
        let mut dropped: Vec<_> = listed(env, &filter, 1).await?.iter().map(|t| t.id).collect();
        let mut sorted = dropped.clone();
        sorted.sort();
        assert_eq!(dropped, sorted, "tables of one name are ordered by id");
        dropped.sort();
        ids.sort();
        assert_eq!(dropped, ids);
        Ok(())
    }

    /// commit 14: neither a live name nor any id is given twice.
    async fn taken_names_and_ids_are_rejected(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        let before = env.dump(id).await?;
        let again = env.new_table("t");
        let other = again.id;
        let outcome = env.commit(vec![Change::new().create(again)?]).await?;
        let reason = Rejection::NameTaken(name("t"));
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason });
        assert_eq!(env.db().get_table(&TableRef::Id(other)).await?, None);

        let mut same_id = env.new_table("u");
        same_id.id = id;
        let outcome = env.commit(vec![Change::new().create(same_id.clone())?]).await?;
        let reason = Rejection::IdTaken(id);
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason: reason.clone() });
        assert_eq!(env.dump(id).await?, before);

        env.db().drop_table(id, &Act::at(env.now())).await?;
        let outcome = env.commit(vec![Change::new().create(same_id)?]).await?;
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason }, "of a dropped table");

        let importing = env.new_table("i");
        env.db().import_begin(&importing, v(0), true, env.now()).await?;
        let outcome = env.commit(vec![Change::new().create(env.new_table("i"))?]).await?;
        let reason = Rejection::NameTaken(name("i"));
        assert_eq!(outcome, CommitOutcome::Rejected { index: 0, reason }, "of an import");
        Ok(())
    }

    /// commit 14: of racing creates of one name exactly one wins.
    async fn racing_creates_admit_one(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let mut calls = Vec::new();
        for i in 0..8 {
            let part = Change::files([format!("f{i}")]).create(env.new_table("t"))?;
            let request = env.request(vec![part]);
            let db = handles[i % 2].clone();
            calls.push(async move { retrying(|| db.commit(request.clone())).await });
        }
        let mut won = Vec::new();
        for outcome in together(calls).await? {
            match outcome? {
                CommitOutcome::Committed(tables) => won.push(tables[0].table_id),
                CommitOutcome::Rejected { index: 0, reason: Rejection::NameTaken(_) } => {}
                other => return fail(format_args!("{other:?}")),
            }
        }
        assert_eq!(won.len(), 1, "{won:?}");
        let found = env.db().get_table(&TableRef::Name(name("t"))).await?;
        assert_eq!(found.map(|t| t.id), Some(won[0]));
        assert_eq!(listed(env, &TableFilter::default(), 10).await?.len(), 1);
        Ok(())
    }

    /// undrop_table 1: of racing undrops to one name exactly one wins.
    async fn racing_undrops_admit_one(env: &Env) -> CaseResult {
        let handles = env.two_handles().await?;
        let mut calls = Vec::new();
        for i in 0..4 {
            let id = env.create(&format!("t{i}")).await?;
            env.db().drop_table(id, &Act::at(env.now())).await?;
            let db = handles[i % 2].clone();
            let back = name("back");
            calls.push(async move {
                let act = Act::default();
                retrying(|| db.undrop_table(id, &back, &act)).await
            });
        }
        let mut won = 0;
        for answer in together(calls).await? {
            match answer {
                Ok(_) => won += 1,
                Err(CatalogError::TableExists(_)) => {}
                Err(e) => return Err(e.into()),
            }
        }
        assert_eq!(won, 1);
        assert_eq!(names(&listed(env, &TableFilter::default(), 10).await?), ["ns.back"]);
        Ok(())
    }
}
