use tempfile::TempDir;

use super::*;

const TABLE: &str = "CREATE TABLE IF NOT EXISTS things (id TEXT PRIMARY KEY)";

async fn store(dir: &TempDir) -> Store {
    let url = format!("sqlite://{}", dir.path().join("store.db").display());
    Store::open(&url, &[TABLE]).await.unwrap()
}

fn insert(id: &str) -> Query<'_> {
    sql("INSERT INTO things (id) VALUES ($1)").bind(id)
}

async fn things(store: &Store) -> usize {
    store
        .rows(sql("SELECT id FROM things"))
        .await
        .unwrap()
        .len()
}

#[tokio::test]
async fn a_dropped_transaction_changes_nothing() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let mut tx = store.begin().await.unwrap();
    tx.execute(insert("a")).await.unwrap();
    drop(tx);
    assert_eq!(things(&store).await, 0);
}

#[tokio::test]
async fn after_a_transaction_that_the_database_gave_up_the_next_one_writes() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    store.execute(insert("a")).await.unwrap();
    // A full disk does the same to a commit.
    let lost = store.execute(sql("INSERT OR ROLLBACK INTO things (id) VALUES ('a')"));
    assert!(matches!(lost.await, Err(StoreError::Unique)));
    store.execute(insert("b")).await.unwrap();
    assert_eq!(things(&store).await, 2);
}

#[tokio::test]
async fn what_was_committed_is_there_when_the_file_is_opened_again() {
    let dir = TempDir::new().unwrap();
    store(&dir).await.execute(insert("a")).await.unwrap();
    assert_eq!(things(&store(&dir).await).await, 1);
}

#[tokio::test]
async fn a_second_row_with_the_same_key_is_told_apart_from_other_errors() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    store.execute(insert("a")).await.unwrap();
    assert!(matches!(
        store.execute(insert("a")).await,
        Err(StoreError::Unique)
    ));
    let nonsense = store.execute(sql("INSERT INTO nowhere VALUES (1)")).await;
    assert!(
        matches!(nonsense, Err(StoreError::Database(_))),
        "{nonsense:?}"
    );
}

#[tokio::test]
async fn while_somebody_else_holds_the_lock_readers_go_on_and_writers_are_told() {
    let dir = TempDir::new().unwrap();
    let (ours, theirs) = (store(&dir).await, store(&dir).await);
    let held = theirs.begin().await.unwrap();
    let (written, seen) = tokio::join!(ours.execute(insert("a")), things(&ours));
    assert!(
        matches!(written, Err(StoreError::Busy | StoreError::TimedOut(..))),
        "{written:?}"
    );
    assert_eq!(seen, 0);
    drop(held);
    crate::testing::eventually("writers go on", async || {
        ours.execute(insert("b")).await.is_ok()
    })
    .await;
    assert_eq!(things(&ours).await, 1);
}

#[tokio::test]
async fn writers_of_one_service_wait_for_each_other() {
    let dir = TempDir::new().unwrap();
    let store = store(&dir).await;
    let ids: Vec<String> = (0..50).map(|n| n.to_string()).collect();
    let writes = ids.iter().map(|id| store.execute(insert(id)));
    for written in futures_util::future::join_all(writes).await {
        written.unwrap();
    }
    assert_eq!(things(&store).await, 50);
}
