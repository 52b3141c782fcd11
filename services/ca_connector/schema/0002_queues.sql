-- A queue of work for each authority: when an order is due, what is being asked, what may have been issued unseen.
-- The status of what was issued, and the lists it was read from.

alter table orders
    alter column attempted_at set default now(),  -- of the release before, which `due_at` replaces
    add column profile text not null default 'signing',
    add column renews text,
    add column origin bytea,
    add column key_hash bytea,  -- SHA-256 of the public key: one order for a key at a time
    add column due_at timestamptz not null default now(),  -- whoever works on the order moves it forward
    add column asked_at timestamptz,  -- being placed since; null when what came of it is recorded
    add column polls integer not null default 0,
    add column failures integer not null default 0,
    add column trouble text,  -- the last failure, for an operator
    add column confirm_due boolean not null default false,  -- the authority waits for the SAM's word
    add column expires_at timestamptz,
    add column expiry_warned_at timestamptz,
    add column status text not null default 'valid' check (status in ('valid', 'suspended', 'revoked')),
    add column status_checked_at timestamptz,
    add column status_due_at timestamptz;

alter table orders drop constraint orders_state_check;
alter table orders add constraint orders_state_check
    check (state in ('SUBMITTED', 'PENDING', 'UNKNOWN', 'ISSUED', 'CONFIRMED', 'REJECTED'));
alter table orders add constraint orders_unknown_check check (state <> 'UNKNOWN' or reason is not null);

drop index orders_in_hand;
create index orders_due on orders (authority, due_at) where state in ('SUBMITTED', 'PENDING') or confirm_due;
create index orders_untold on orders (due_at) where state = 'ISSUED';
create unique index orders_one_for_a_key on orders (authority, key_hash, coalesce(renews, ''))
    where state <> 'REJECTED';
create index orders_status_due on orders (authority, status_due_at) where state = 'CONFIRMED' and status <> 'revoked';
create index orders_serial on orders (authority, serial_number) where serial_number is not null;
create index orders_expiring on orders (expires_at) where state = 'CONFIRMED' and status <> 'revoked';

create or replace function keep_orders_forward() returns trigger language plpgsql as $$
begin
    if (new.order_id, new.authority, new.profile, new.csr, new.renews, new.origin, new.operation_id, new.submitted_at)
        is distinct from
        (old.order_id, old.authority, old.profile, old.csr, old.renews, old.origin, old.operation_id, old.submitted_at)
    then
        raise exception 'what was ordered never changes';
    end if;
    if cardinality(old.chain) > 0
        and (new.chain, new.serial_number) is distinct from (old.chain, old.serial_number) then
        raise exception 'the certificate of an order is never exchanged';
    end if;
    if old.status = 'revoked' and new.status <> 'revoked' then
        raise exception 'what is revoked stays revoked';
    end if;
    if old.state <> new.state and (old.state, new.state) not in (
        ('SUBMITTED', 'PENDING'), ('SUBMITTED', 'ISSUED'), ('SUBMITTED', 'REJECTED'), ('SUBMITTED', 'UNKNOWN'),
        ('PENDING', 'ISSUED'), ('PENDING', 'REJECTED'), ('PENDING', 'UNKNOWN'),
        ('UNKNOWN', 'SUBMITTED'), ('UNKNOWN', 'PENDING'), ('UNKNOWN', 'ISSUED'), ('UNKNOWN', 'REJECTED'),
        ('ISSUED', 'CONFIRMED'), ('ISSUED', 'REJECTED')
    ) then
        raise exception 'an order cannot go from % to %', old.state, new.state;
    end if;
    return new;
end $$;

alter table revocations
    add column due_at timestamptz not null default now(),
    add column failures integer not null default 0,
    add column trouble text,
    alter column attempted_at set default now();

drop index revocations_in_hand;
create index revocations_due on revocations (due_at) where revoked_at is null;

-- When the authority was asked for a certificate: what its quota counts, all replicas together.
create table askings (
    authority text not null,
    asked_at timestamptz not null
);

create index askings_of_authority on askings (authority, asked_at);

-- Revocation lists of authorities as they were fetched and verified; the delta beside its base.
create table status_lists (
    authority text not null,
    url text not null,
    crl bytea,
    number numeric,
    this_update timestamptz,
    next_update timestamptz,
    delta boolean not null default false,
    fetched_at timestamptz,
    due_at timestamptz not null default now(),
    trouble text,
    primary key (authority, url)
);

grant select, insert on askings, status_lists to $room;
grant delete on askings to $room;
grant update (crl, number, this_update, next_update, delta, fetched_at, due_at, trouble) on status_lists to $room;
grant update (due_at, asked_at, polls, failures, trouble, confirm_due, expires_at, expiry_warned_at, status,
    status_checked_at, status_due_at) on orders to $room;
grant update (due_at, failures, trouble) on revocations to $room;
