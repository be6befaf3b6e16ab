//! The interning table under shuttle's schedules.

use shuttle::thread;

use super::*;

#[test]
fn equal_values_that_threads_hold_are_one_whenever_it_is_tidied() {
    let model = || {
        let shared = Arc::new(Interner::new(2));
        let intern = |value: u32| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || shared.intern(value))
        };
        let (one, same, other) = (intern(7), intern(7), intern(8));
        shared.tidy();
        let [one, same, other] = [one, same, other].map(|thread| thread.join().unwrap());
        assert!(Arc::ptr_eq(&one, &same) && !Arc::ptr_eq(&one, &other));
        drop((one, same));
        shared.tidy();
        let inner = shared.inner.read().unwrap();
        assert_eq!(
            inner.all.iter().map(|value| **value).collect::<Vec<_>>(),
            [8]
        );
    };
    shuttle::check_random(model, 2000);
    shuttle::check_pct(model, 2000, 3);
}
