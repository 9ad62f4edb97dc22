//! Two threads, each with a model of what is its own.

use iommufd::Device;
use iommufd::mock::MockMachine;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::TestRunner;

use super::steps::{Step, step};
use super::world::World;
use super::{STEPS, errno};
use crate::support::{Client, Platform, Start, cases};

/// How many threads there are.
const THREADS: usize = 2;

/// Runs a thread's steps, each answered as its own model says.
fn run(world: &mut World, steps: &[Step], is_alone: bool) {
    for step in steps.iter().filter(|step| is_alone || step.is_of_a_window()) {
        let (real, modelled) = world.take(step);
        assert_eq!(real, modelled.map_err(errno), "{step:x?}");
    }
}

/// As many cases as make up the operations asked for, of some steps for each thread.
fn in_threads(run_case: impl Fn([Vec<Step>; THREADS])) {
    let steps = || vec(step(), 1..STEPS);
    let operations = u32::try_from(STEPS / 2 * THREADS).unwrap();
    let config =
        ProptestConfig { max_shrink_iters: 0, ..ProptestConfig::with_cases(cases(12, operations)) };
    let outcome = TestRunner::new(config).run(&[steps(), steps()], |steps| {
        run_case(steps);
        Ok(())
    });
    outcome.unwrap_or_else(|difference| panic!("{difference}"));
}

/// Runs all threads at once, and compares what they leave.
fn run_together(client: &Client, worlds: &mut [World], steps: &[Vec<Step>], is_alone: bool) {
    let start = Start::of(THREADS);
    std::thread::scope(|scope| {
        for (world, steps) in worlds.iter_mut().zip(steps) {
            let start = &start;
            scope.spawn(move || {
                start.wait();
                run(world, steps, is_alone);
            });
        }
    });
    let mapped: u64 = worlds.iter().map(|world| world.model.mapped()).sum();
    assert_eq!(client.ctx.counts().mapped_bytes, mapped);
    worlds.iter().for_each(World::check);
}

/// Two threads of one program, each with address spaces of its own in one context.
#[test]
fn of_threads_with_spaces_of_their_own() {
    in_threads(|steps| {
        let client = Client::open_mock(&MockMachine::new());
        let threads = (0..).zip(&steps).map(|(number, _)| World::of(client.thread(number), number));
        let mut worlds: Vec<World> = threads.collect();
        run_together(&client, &mut worlds, &steps, true);
        for world in &worlds {
            world.end_users();
            world.devices.iter().for_each(Device::end);
        }
        client.ctx.put_file();
        assert_eq!(client.memory.pinned(), []);
    });
}

/// Two threads that map, copy, unmap, pin and reach by DMA in the same address spaces, each in a window of its own.
#[test]
fn of_threads_that_share_spaces() {
    in_threads(|steps| {
        let client = Client::open_mock(&MockMachine::new());
        let platform = Platform::new();
        let devices =
            [platform.bind(&client), Device::bind(&client.ctx, &platform.pair[0]).unwrap()];
        let spaces = [client.ioas(), client.ioas()];
        for (device, space) in devices.iter().zip(spaces) {
            device.attach(space).unwrap();
        }
        let threads = (0..).zip(&steps);
        let threads = threads
            .map(|(number, _)| World::in_window(client.thread(number), number, &devices, spaces));
        let mut worlds: Vec<World> = threads.collect();
        run_together(&client, &mut worlds, &steps, false);
        worlds.iter().for_each(World::end_users);
        devices.iter().for_each(Device::end);
        client.ctx.put_file();
        assert_eq!(client.memory.pinned(), []);
    });
}
