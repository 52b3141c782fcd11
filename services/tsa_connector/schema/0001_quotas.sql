-- How many tokens every TSA was asked for, by all replicas together: what quotas are held against. Beside it the audit
-- leaves, one for each token. Counted by second, minute and hour, so that any quota can be held against it, also one
-- that officers change tomorrow: a short window is counted in seconds, a month in hours, always to the safe side.

create table spending (
    authority text not null,
    unit_s integer not null check (unit_s in (1, 60, 3600)),
    slot bigint not null,  -- unix time divided by the unit
    requests integer not null check (requests >= 0),
    primary key (authority, unit_s, slot)
);

create table spenders (
    authority text primary key,
    seen_at timestamptz not null default now()
);

create function unit_of(seconds integer) returns integer immutable language sql as $$
    select case when seconds <= 3600 then 1 when seconds <= 172800 then 60 else 3600 end
$$;

-- What is left of each quota now. A slot that began before the window did is counted whole: no stretch of so many
-- seconds ever holds more than the quota, at the price of a slot's length before the last requests of it are free again.
create function quota_left(wanted_authority text, quota_requests integer[], quota_seconds integer[])
returns integer[] stable language sql as $$
    select array_agg(greatest(0, quota.requests - coalesce((
        select sum(spent.requests) from spending as spent
        where spent.authority = wanted_authority and spent.unit_s = unit_of(quota.seconds)
            and spent.slot >= floor((extract(epoch from clock_timestamp()) - quota.seconds) / unit_of(quota.seconds))
    ), 0))::integer order by quota.place)
    from unnest(quota_requests, quota_seconds) with ordinality as quota (requests, seconds, place)
$$;

-- Spend as many of the wanted requests as every quota allows, and tell how many. One replica at a time for each TSA:
-- the row of `spenders` is held until the commit.
create function spend(wanted_authority text, wanted integer, quota_requests integer[], quota_seconds integer[])
returns table (granted integer, seconds bigint) language plpgsql as $$
begin
    insert into spenders (authority) values (wanted_authority) on conflict (authority) do nothing;
    perform from spenders where authority = wanted_authority for update;
    select least(wanted, min(remaining)) into granted
    from unnest(quota_left(wanted_authority, quota_requests, quota_seconds)) as remaining;
    seconds := floor(extract(epoch from clock_timestamp()));
    if granted > 0 then
        insert into spending (authority, unit_s, slot, requests)
        select wanted_authority, unit_s, seconds / unit_s, granted from unnest(array[1, 60, 3600]) as unit_s
        on conflict (authority, unit_s, slot) do update set requests = spending.requests + excluded.requests;
    end if;
    return next;
end $$;

-- Give back a request that surely never reached the TSA.
create function give_back(wanted_authority text, spent_at bigint) returns void language sql as $$
    update spending set requests = requests - 1
    where authority = wanted_authority and requests > 0
        and (unit_s, slot) in (select unit_s, spent_at / unit_s from unnest(array[1, 60, 3600]) as unit_s)
$$;

grant select, insert, delete, update (requests) on spending to $room;
-- To hold a row with `for update` needs the right to update some column.
grant select, insert, update (seen_at) on spenders to $room;
