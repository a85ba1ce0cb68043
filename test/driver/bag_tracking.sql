-- The tables of a bag-tracking application, as its object-relational mapper creates them: what the
-- bag-tracking preset attaches to.
CREATE TABLE "user" (
    id         serial PRIMARY KEY,
    username   varchar(64) UNIQUE NOT NULL,
    role       varchar(20) DEFAULT 'dispatcher',
    created_at timestamp DEFAULT now()
);

CREATE TABLE bag (
    id            serial PRIMARY KEY,
    qr_id         varchar(255) UNIQUE NOT NULL,
    type          varchar(10) NOT NULL,
    name          varchar(100),
    child_count   integer,
    parent_id     integer,
    user_id       integer REFERENCES "user" ON DELETE SET NULL,
    dispatch_area varchar(30),
    status        varchar(20) DEFAULT 'pending',
    weight_kg     double precision DEFAULT 0,
    created_at    timestamp DEFAULT now(),
    updated_at    timestamp DEFAULT now()
);

CREATE TABLE link (
    id            serial PRIMARY KEY,
    parent_bag_id integer NOT NULL REFERENCES bag ON DELETE CASCADE,
    child_bag_id  integer NOT NULL REFERENCES bag ON DELETE CASCADE,
    created_at    timestamp DEFAULT now(),
    UNIQUE (parent_bag_id, child_bag_id)
);

CREATE TABLE bill (
    id                 serial PRIMARY KEY,
    bill_id            varchar(50) UNIQUE NOT NULL,
    description        text,
    parent_bag_count   integer DEFAULT 1,
    total_weight_kg    double precision DEFAULT 0,
    expected_weight_kg double precision DEFAULT 0,
    total_child_bags   integer DEFAULT 0,
    status             varchar(20) DEFAULT 'new',
    created_by_id      integer REFERENCES "user" ON DELETE SET NULL,
    created_at         timestamp DEFAULT now(),
    updated_at         timestamp DEFAULT now()
);

CREATE TABLE bill_bag (
    id         serial PRIMARY KEY,
    bill_id    integer NOT NULL REFERENCES bill ON DELETE CASCADE,
    bag_id     integer NOT NULL REFERENCES bag ON DELETE CASCADE,
    created_at timestamp DEFAULT now(),
    UNIQUE (bill_id, bag_id)
);

CREATE TABLE scan (
    id            serial PRIMARY KEY,
    "timestamp"   timestamp DEFAULT now(),
    parent_bag_id integer REFERENCES bag,
    child_bag_id  integer REFERENCES bag,
    user_id       integer REFERENCES "user" ON DELETE SET NULL
);

CREATE INDEX ON bag (type, created_at);
CREATE INDEX ON bag (type, dispatch_area);
CREATE INDEX ON bag (user_id);
CREATE INDEX ON link (child_bag_id);
CREATE INDEX ON bill (status, created_at);
CREATE INDEX ON bill_bag (bag_id);
CREATE INDEX ON scan ("timestamp", user_id);
CREATE INDEX ON scan (user_id, "timestamp");
CREATE INDEX ON scan (parent_bag_id);
CREATE INDEX ON scan (child_bag_id);
