//! Hostile text: names, paths, ids. It is only ever bound as a parameter, and comes back exactly.

use deltalakedb_catalog_core::audit::Act;
use deltalakedb_catalog_core::backend::CatalogBackendExt;
use deltalakedb_catalog_core::backend::{CommitOutcome, TableFilter};
use deltalakedb_catalog_core::error::{CatalogError, WriteState};
use deltalakedb_catalog_core::ids::{At, TableName, TableRef};

use super::cases;
use crate::change::{Change, file, gone, metadata, with_dv};
use crate::env::{CaseResult, Env, committed, fail, v};

/// Text that breaks programs which paste it into SQL, patterns, paths or formats.
const HOSTILE: [&str; 24] = [
    "it's",
    "\"quoted\"",
    "`ticks`",
    "[brackets]",
    "'; DROP TABLE dl_tables; --",
    "' OR '1'='1",
    "100%",
    "under_score",
    "a%b_c",
    "back\\slash",
    "\\'",
    "?1 $1 :name @p1 {0} %s",
    "/* comment */ -- x",
    "naïve",
    "日本語",
    "🚀👩‍👩‍👧",
    "e\u{301}",
    "\u{202e}rtl",
    "\u{feff}bom",
    "NULL",
    "null",
    "0",
    "-1e400",
    "$$dollar$$",
];

cases! {
    /// contract 3: hostile names are ordinary names: created, found, listed, dropped, brought back.
    async fn hostile_names_are_ordinary(env: &Env) -> CaseResult {
        let mut names = Vec::new();
        for text in HOSTILE {
            let name = TableName::new(text, text)?;
            let mut new = env.new_table("x");
            new.name = name.clone();
            new.location = format!("memory:///{text}");
            new.storage_options.insert(text.to_owned(), text.to_owned());
            let id = new.id;
            committed(env.commit(vec![Change::files(["a"]).create(new.clone())?]).await?)?;
            let record = env.record(id).await?;
            assert_eq!((&record.name, &record.location), (&name, &new.location));
            assert_eq!(record.storage_options, new.storage_options);
            let found = env.db().get_table(&TableRef::Name(name.clone())).await?;
            assert_eq!(found.as_ref(), Some(&record), "{text:?}");
            let opened = env.db().snapshot(&TableRef::Name(name.clone()), At::Head).await?;
            assert_eq!(opened.table.id, id);
            let filter = TableFilter { namespace: Some(text.to_owned()), state: None };
            let page = env.db().list_tables(&filter, None, 10).await?;
            assert_eq!(page.items, std::slice::from_ref(&record), "{text:?}");
            env.db().drop_table(id, &Act::at(env.now())).await?;
            assert_eq!(env.db().undrop_table(id, &name, &Act::default()).await?, record);
            names.push(name);
        }
        names.sort();
        let mut listed = Vec::new();
        let mut after = None;
        loop {
            let page = env.db().list_tables(&TableFilter::default(), after.as_ref(), 5).await?;
            listed.extend(page.items.into_iter().map(|t| t.name));
            match page.next {
                None => break,
                next => after = next,
            }
        }
        assert_eq!(listed, names, "by bytes, not by a language's rules");
        Ok(())
    }

    /// contract 8: both parts of a name have up to 255 characters, of up to four bytes each.
    async fn names_of_255_characters(env: &Env) -> CaseResult {
        for character in ["n", "ü", "語", "🚀"] {
            let longest = character.repeat(TableName::MAX_CHARS);
            let shorter = character.repeat(TableName::MAX_CHARS - 1);
            for table in [&longest, &shorter] {
                let mut new = env.new_table("x");
                new.name = TableName::new(longest.clone(), table.clone())?;
                let id = new.id;
                committed(env.commit(vec![Change::new().create(new.clone())?]).await?)?;
                let found = env.db().get_table(&TableRef::Name(new.name)).await?;
                assert_eq!(found.map(|t| t.id), Some(id));
            }
            let filter = TableFilter { namespace: Some(longest), state: None };
            assert_eq!(env.db().list_tables(&filter, None, 10).await?.items.len(), 2);
        }
        Ok(())
    }

    /// contract 3: hostile paths and deletion vectors are ordinary files.
    async fn hostile_paths_are_ordinary(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        let mut adds = Vec::new();
        for text in HOSTILE {
            adds.push(file(text));
            adds.push(with_dv(file(text), text));
        }
        env.write(id, adds.iter().cloned().fold(Change::new(), Change::add)).await?;
        let stored: Vec<_> = env.files(id, v(1)).await?.into_iter().map(|f| f.add).collect();
        assert_eq!(stored, adds);
        let change = adds.iter().fold(Change::new(), |c, add| c.remove(gone(add, Some(1))));
        env.write(id, change).await?;
        assert_eq!(env.files(id, v(2)).await?, []);
        let buried = env.tombstones(id, v(2), 0).await?;
        assert_eq!(buried.len(), adds.len());
        for (tombstone, add) in buried.iter().zip(&adds) {
            assert_eq!(tombstone.remove, gone(add, Some(1)));
        }
        Ok(())
    }

    /// contract 3: hostile text in every other field comes back exactly.
    async fn hostile_text_in_every_field(env: &Env) -> CaseResult {
        let id = env.create("t").await?;
        for (i, text) in HOSTILE.into_iter().enumerate() {
            let mut add = file(format!("f{i}"));
            add.partition_values.insert(text.to_owned(), Some(text.to_owned()));
            add.tags = Some([(text.to_owned(), Some(text.to_owned()))].into_iter().collect());
            add.stats = Some(text.to_owned());
            add.clustering_provider = Some(text.to_owned());
            let mut meta = metadata(text);
            meta.id = text.to_owned();
            meta.name = Some(text.to_owned());
            meta.schema_string = text.to_owned();
            meta.partition_columns = vec![text.to_owned(), String::new()];
            meta.configuration.insert(text.to_owned(), Some(text.to_owned()));
            meta.configuration.insert("null".to_owned(), None);
            meta.format.options.insert(text.to_owned(), None);
            let mut protocol = crate::change::protocol(7);
            protocol.reader_features = Some(vec![text.to_owned()]);
            protocol.writer_features = Some(vec![text.to_owned(), String::new()]);
            let change = Change::new()
                .add(add.clone())
                .metadata(meta.clone())
                .protocol(protocol.clone())
                .txn(text, 1)
                .domain(text, Some(text));
            let version = env.write(id, change).await?.version;
            let snapshot = env.snapshot(id, At::Head).await?;
            assert_eq!((snapshot.metadata, snapshot.protocol), (meta, protocol));
            let files = env.files(id, version).await?;
            assert_eq!(files.last().map(|f| &f.add), Some(&add));
        }
        let mut want = HOSTILE.to_vec();
        want.sort_unstable();
        let head = env.head(id).await?;
        let txns = env.db().app_transactions(id, head).await?;
        assert_eq!(txns.iter().map(|t| t.app_id.as_str()).collect::<Vec<_>>(), want);
        let domains = env.db().domain_metadata(id, head).await?;
        assert_eq!(domains.iter().map(|d| d.domain.as_str()).collect::<Vec<_>>(), want);
        assert!(domains.iter().all(|d| d.domain == d.configuration));
        Ok(())
    }

    /// contract 7: paths of 4,000 characters, told apart by their last one only.
    async fn long_paths_are_told_apart(env: &Env) -> CaseResult {
        let mut paths = Vec::new();
        for character in ["x", "ü", "🚀"] {
            let prefix = character.repeat(3_999);
            for last in ["a", "b", "A", "%61"] {
                paths.push(format!("{prefix}{last}"));
            }
        }
        let id = env.create_with("t", Change::files(&paths)).await?;
        assert_eq!(env.paths(id, v(0)).await?, paths);
        env.write(id, Change::new().remove(gone(&file(&paths[1]), Some(1)))).await?;
        env.write(id, Change::files([&paths[2]])).await?;
        let mut want = paths.clone();
        want.remove(1);
        let last = want.remove(1);
        want.push(last);
        assert_eq!(env.paths(id, v(2)).await?, want);
        assert_eq!(env.buried(id, v(2), 0).await?, paths[1..2]);
        Ok(())
    }

    /// contract 3: a NUL character (in JSON: `\u0000`) is stored exactly, or refused as
    /// `InvalidInput` with nothing written; never cut off.
    async fn nul_is_stored_or_refused(env: &Env) -> CaseResult {
        let id = env.create_with("t", Change::files(["a"])).await?;
        let mut stats = file("stats");
        stats.stats = Some("{\"minValues\":{\"s\":\"\0\"}}".to_owned());
        let changes = [
            Change::files(["a\0b"]),
            Change::new().add(stats),
            Change::new().txn("app\0a", 1).txn("app\0b", 2),
            Change::new().domain("d\0a", Some("x\0y")).domain("d\0b", Some("z")),
        ];
        for change in changes {
            let before = env.dump(id).await?;
            let head = before.snapshot.version;
            let part = change.exactly(id, head)?;
            let index = part.index.clone();
            match env.commit(vec![part]).await {
                Ok(CommitOutcome::Committed(_)) => {
                    let files = env.files(id, head.next()).await?;
                    for add in &index.adds {
                        assert!(files.iter().any(|f| f.add == *add), "{add:?} in {files:?}");
                    }
                    let txns = env.db().app_transactions(id, head.next()).await?;
                    assert!(index.txns.iter().all(|t| txns.contains(t)), "{txns:?}");
                    let domains = env.db().domain_metadata(id, head.next()).await?;
                    assert!(index.domain_metadata.iter().all(|d| domains.contains(d)));
                }
                Err(e @ CatalogError::InvalidInput(_)) => {
                    assert_eq!(e.write_state(), WriteState::NotApplied);
                    assert_eq!(env.dump(id).await?, before);
                }
                other => return fail(format_args!("{other:?}")),
            }
        }
        Ok(())
    }
}
