create table customers (id integer primary key, region text not null, name text not null, city text);
insert into customers values (1, 'eu', 'Ada', 'London'), (2, 'eu', 'Blaise', 'Clermont'), (3, 'us', 'Grace', 'New York');
