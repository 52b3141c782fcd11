-- The wrapped keys of the signers, and the record of every operation with a private key. Finality is kept here, by
-- triggers and column grants: no bug of the room can sign an operation twice or change what a key is bound to.

create table keys (
    key_id text primary key,  -- kept for ever: an id is never used again
    owner text not null,
    kind text not null,
    key_algorithm text not null,
    profile text not null,
    signatures_max integer not null check (signatures_max between 1 and 1000),
    public_key bytea not null,
    public_key_hash bytea not null unique check (public_key_hash = sha256(public_key)),
    kek text not null,
    envelope_version smallint not null,
    wrapped bytea,
    resident bytea,  -- names the object in the token, where the module cannot wrap this kind of key
    state text not null default 'active' check (state in ('active', 'destroyed')),
    content_hash bytea not null,  -- of the activation that ordered the key
    activation bytea not null,
    created_at timestamptz not null default now(),
    destroyed_at timestamptz,
    check ((state = 'destroyed') = (wrapped is null)),
    check ((state = 'destroyed') = (destroyed_at is not null)),
    check (state = 'active' or resident is null)
);

create function destroy_keys_only() returns trigger language plpgsql as $$
begin
    if old.state = 'destroyed' then
        raise exception 'a destroyed key stays destroyed';
    end if;
    if new.state <> 'destroyed'
        or (new.key_id, new.owner, new.kind, new.key_algorithm, new.profile, new.signatures_max, new.public_key,
            new.public_key_hash, new.kek, new.envelope_version, new.content_hash, new.activation, new.created_at)
        is distinct from
           (old.key_id, old.owner, old.kind, old.key_algorithm, old.profile, old.signatures_max, old.public_key,
            old.public_key_hash, old.kek, old.envelope_version, old.content_hash, old.activation, old.created_at)
    then
        raise exception 'what a key is bound to never changes; it can only be destroyed';
    end if;
    return new;
end $$;

create trigger keys_final before update on keys for each row execute function destroy_keys_only();

create table operations (
    operation_id text primary key,
    key_id text not null references keys,
    use text not null check (use in ('sign', 'csr')),
    content_hash bytea not null,
    activation bytea not null,  -- the evidence: the exact bytes the SAM signed
    digests integer not null check (digests between 1 and 1000),
    state text not null default 'intent' check (state in ('intent', 'done')),
    attempts integer not null default 1,
    signature_values bytea[],
    intended_at timestamptz not null default now(),
    done_at timestamptz,
    check ((state = 'done') = (signature_values is not null)),
    check (state = 'intent' or cardinality(signature_values) = digests),
    check ((state = 'done') = (done_at is not null))
);

create function finish_operations_once() returns trigger language plpgsql as $$
begin
    if old.state = 'done' then
        raise exception 'a done operation is final';
    end if;
    if (new.operation_id, new.key_id, new.use, new.content_hash, new.activation, new.digests, new.intended_at)
        is distinct from
       (old.operation_id, old.key_id, old.use, old.content_hash, old.activation, old.digests, old.intended_at)
        or new.attempts < old.attempts
    then
        raise exception 'what an operation was ordered to do never changes';
    end if;
    return new;
end $$;

create trigger operations_final before update on operations for each row execute function finish_operations_once();

create table spent_occurrences (
    authorization_id text not null,
    occurrence integer not null,
    operation_id text not null references operations,
    primary key (authorization_id, occurrence)
);

create table key_pool (
    pooled_id bigint generated always as identity primary key,
    key_algorithm text not null,
    kek text not null,
    public_key bytea not null unique,
    inner_wrapped bytea not null,  -- by the KEK alone: it belongs to nobody yet
    created_at timestamptz not null default now()
);

grant select, insert, update (state, wrapped, resident, destroyed_at) on keys to $room;
grant select, insert, update (state, attempts, signature_values, done_at) on operations to $room;
grant select, insert on spent_occurrences to $room;
-- Taking a row with `for update` needs the right to update some column; this one matters to nobody.
grant select, insert, delete, update (created_at) on key_pool to $room;
