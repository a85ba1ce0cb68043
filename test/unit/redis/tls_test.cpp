/*-------------------------------------------------------------------------
 *
 * tls_test.cpp
 *		An encrypted connection carries bytes unchanged, and only to who was meant.
 *
 * The other end is OpenSSL's own server over buffers; certificates are made
 * here.
 *
 *-------------------------------------------------------------------------
 */
#include <cstdio>
#include <cstdlib>
#include <memory>

#include <gtest/gtest.h>
#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>

#include "core/base/error.hpp"
#include "core/redis/tls.hpp"

namespace cache_ext::redis {
namespace {

struct Free
{
	void operator()(SSL_CTX *context) const { SSL_CTX_free(context); }
	void operator()(SSL *ssl) const { SSL_free(ssl); }
	void operator()(BIO *bio) const { BIO_free(bio); }
	void operator()(EVP_PKEY *key) const { EVP_PKEY_free(key); }
	void operator()(X509 *certificate) const { X509_free(certificate); }
};

template <typename T> using Owned = std::unique_ptr<T, Free>;

Owned<EVP_PKEY>
make_key()
{
	return Owned<EVP_PKEY>(EVP_EC_gen("P-256"));
}

/* Signed by itself, or by the authority. */
Owned<X509>
make_certificate(EVP_PKEY *key, const char *names, X509 *authority, EVP_PKEY *authority_key)
{
	static long serial = 0;
	Owned<X509> made(X509_new());
	X509_NAME *subject = X509_get_subject_name(made.get());

	X509_set_version(made.get(), 2);
	ASN1_INTEGER_set(X509_get_serialNumber(made.get()), ++serial);
	X509_gmtime_adj(X509_getm_notBefore(made.get()), -3600);
	X509_gmtime_adj(X509_getm_notAfter(made.get()), 3600);
	X509_set_pubkey(made.get(), key);
	X509_NAME_add_entry_by_txt(
	    subject, "CN", MBSTRING_ASC,
	    reinterpret_cast<const unsigned char *>(names != nullptr ? "end" : "ca"), -1, -1, 0);
	X509_set_issuer_name(made.get(),
	                     authority != nullptr ? X509_get_subject_name(authority) : subject);

	X509V3_CTX context;

	X509V3_set_ctx(&context, authority != nullptr ? authority : made.get(), made.get(), nullptr,
	               nullptr, 0);

	X509_EXTENSION *extension =
	    names != nullptr ? X509V3_EXT_conf_nid(nullptr, &context, NID_subject_alt_name, names)
	                     : X509V3_EXT_conf_nid(nullptr, &context, NID_basic_constraints, "CA:TRUE");

	X509_add_ext(made.get(), extension, -1);
	X509_EXTENSION_free(extension);
	X509_sign(made.get(), authority_key != nullptr ? authority_key : key, EVP_sha256());
	return made;
}

/* A file that is gone with the test. */
class File
{
  public:
	File()
	{
		int fd = mkstemp(path_);

		file_ = fdopen(fd, "w");
	}
	~File()
	{
		fclose(file_);
		remove(path_);
	}

	void add(X509 *certificate)
	{
		PEM_write_X509(file_, certificate);
		fflush(file_);
	}
	const char *path() const { return path_; }

  private:
	char path_[32] = "/tmp/cache_ext_tls.XXXXXX";
	FILE *file_;
};

std::string
key_text(EVP_PKEY *key, const char *passphrase = nullptr)
{
	Owned<BIO> out(BIO_new(BIO_s_mem()));
	char *data;

	PEM_write_bio_PrivateKey(out.get(), key, passphrase != nullptr ? EVP_aes_128_cbc() : nullptr,
	                         reinterpret_cast<const unsigned char *>(passphrase),
	                         passphrase != nullptr ? 4 : 0, nullptr, nullptr);

	long size = BIO_get_mem_data(out.get(), &data);

	return std::string(data, static_cast<size_t>(size));
}

class TlsTest : public ::testing::Test
{
  protected:
	TlsTest()
	    : authority_key_(make_key()),
	      authority_(make_certificate(authority_key_.get(), nullptr, nullptr, nullptr))
	{
		trusted_.add(authority_.get());
		settings_.ca_file = trusted_.path();
		settings_.host = "cache.example";
	}

	/* A server that has a certificate for these names. */
	void serve(const char *names, bool by_authority = true, bool wants_ours = false)
	{
		Owned<EVP_PKEY> key = make_key();
		Owned<X509> certificate =
		    make_certificate(key.get(), names, by_authority ? authority_.get() : nullptr,
		                     by_authority ? authority_key_.get() : nullptr);

		own_.add(certificate.get());
		context_.reset(SSL_CTX_new(TLS_server_method()));
		SSL_CTX_use_certificate(context_.get(), certificate.get());
		SSL_CTX_use_PrivateKey(context_.get(), key.get());
		if (wants_ours)
		{
			SSL_CTX_load_verify_locations(context_.get(), trusted_.path(), nullptr);
			SSL_CTX_set_verify(context_.get(), SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT,
			                   nullptr);
		}
		server_.reset(SSL_new(context_.get()));
		in_ = BIO_new(BIO_s_mem());
		out_ = BIO_new(BIO_s_mem());
		BIO_set_mem_eof_return(in_, -1);
		SSL_set_bio(server_.get(), in_, out_);
		SSL_set_accept_state(server_.get());
	}

	/* Carry bytes both ways, at most so many at a time. */
	bool carry(Tls *client, size_t most = 100000)
	{
		std::string_view bytes = client->outgoing().substr(0, most);
		std::string buffer(most, '\0');
		bool moved = !bytes.empty();

		if (moved)
		{
			BIO_write(in_, bytes.data(), static_cast<int>(bytes.size()));
			client->sent(bytes.size());
		}

		int count = BIO_read(out_, &buffer[0], static_cast<int>(buffer.size()));

		if (count > 0)
			client->received({buffer.data(), static_cast<size_t>(count)});
		return moved || count > 0;
	}

	bool connect(Tls *client, size_t most = 100000)
	{
		for (int i = 0; i < 100000; ++i)
		{
			bool done = client->shake_hands();

			ERR_clear_error();
			if (SSL_do_handshake(server_.get()) == 1 && done)
				return true;
			if (!carry(client, most) && !done)
				break;
		}
		return false;
	}

	/* What the handshake complains of; empty: it succeeds. */
	std::string complaint()
	{
		try
		{
			Tls client(settings_);

			return connect(&client) ? "" : "it hangs";
		}
		catch (const Error &error)
		{
			EXPECT_STREQ(error.state().code, "08001");
			return error.detail();
		}
	}

	TlsSettings settings_;
	Owned<EVP_PKEY> authority_key_;
	Owned<X509> authority_;
	File trusted_;
	File own_;
	Owned<SSL_CTX> context_;
	Owned<SSL> server_;
	BIO *in_ = nullptr;
	BIO *out_ = nullptr;
};

TEST_F(TlsTest, CarriesBytesBothWaysHoweverTheyAreCut)
{
	std::string question(300000, 'q');

	for (size_t i = 0; i < question.size(); ++i)
		question[i] = static_cast<char>(i * 31);
	for (size_t most : {size_t{1}, size_t{7}, size_t{1000}, size_t{100000}})
	{
		serve("DNS:cache.example");

		Tls client(settings_);
		std::string heard;
		std::string back;
		std::string_view rest = std::string_view(question).substr(0, most == 1 ? 5000 : 300000);
		std::string expected(rest);
		char buffer[5000];

		ASSERT_TRUE(connect(&client, most));
		while (heard.size() < expected.size())
		{
			int count;

			rest.remove_prefix(client.write(rest));
			carry(&client, most);
			while ((count = SSL_read(server_.get(), buffer, sizeof(buffer))) > 0)
				heard.append(buffer, static_cast<size_t>(count));
		}
		EXPECT_EQ(heard, expected);
		ASSERT_EQ(SSL_write(server_.get(), expected.data(), static_cast<int>(expected.size())),
		          static_cast<int>(expected.size()));
		while (back.size() < expected.size())
		{
			carry(&client, most);
			while (size_t count = client.read(buffer, sizeof(buffer)))
				back.append(buffer, count);
		}
		EXPECT_EQ(back, expected);
		EXPECT_FALSE(client.closed());
		SSL_shutdown(server_.get());
		while (carry(&client, most))
			EXPECT_EQ(client.read(buffer, sizeof(buffer)), 0u);
		EXPECT_EQ(client.read(buffer, sizeof(buffer)), 0u);
		EXPECT_TRUE(client.closed());
	}
}

TEST_F(TlsTest, KeepsWhatWaitsToBeSentWithinBounds)
{
	serve("DNS:cache.example");

	Tls client(settings_);
	std::string endless(64 * 1024, 'x');
	size_t taken = 0;

	ASSERT_TRUE(connect(&client));
	for (int i = 0; i < 1000; ++i)
		taken += client.write(endless);
	EXPECT_GT(taken, 0u);
	EXPECT_LT(client.outgoing().size(), 1024u * 1024u);
	EXPECT_EQ(client.write(endless), 0u);
}

TEST_F(TlsTest, AcceptsTheNameThatTheAddressNames)
{
	serve("DNS:other.example,DNS:cache.example");
	EXPECT_EQ(complaint(), "");
	settings_.host = "10.0.0.7";
	serve("IP:10.0.0.7");
	EXPECT_EQ(complaint(), "");
}

TEST_F(TlsTest, RefusesAnyOtherName)
{
	for (const char *names : {"DNS:other.example", "DNS:example", "DNS:cache.example.org",
	                          "IP:10.0.0.7", "DNS:c*.example"})
	{
		serve(names);
		EXPECT_NE(complaint().find("ostname mismatch"), std::string::npos) << names;
	}
	settings_.host = "10.0.0.7";
	for (const char *names : {"IP:10.0.0.8", "DNS:10.0.0.7"})
	{
		serve(names);
		EXPECT_NE(complaint().find("IP address mismatch"), std::string::npos) << names;
	}
}

TEST_F(TlsTest, VerifiesTheChainAloneWhenToldSo)
{
	settings_.verify_host = false;
	serve("DNS:other.example");
	EXPECT_EQ(complaint(), "");
	settings_.host = "10.0.0.7";
	serve("DNS:other.example");
	EXPECT_EQ(complaint(), "");
	serve("DNS:cache.example", false);
	EXPECT_NE(complaint().find("not trusted"), std::string::npos);
}

TEST_F(TlsTest, RefusesWhomNobodyVouchesFor)
{
	serve("DNS:cache.example", false);
	EXPECT_NE(complaint().find("not trusted"), std::string::npos);
	settings_.ca_file = "";
	serve("DNS:cache.example");
	EXPECT_NE(complaint().find("not trusted"), std::string::npos);
}

TEST_F(TlsTest, TrustsAServersOwnCertificateInTheFile)
{
	serve("DNS:cache.example", false);
	settings_.ca_file = own_.path();
	EXPECT_EQ(complaint(), "");
}

TEST_F(TlsTest, RefusesFilesThatCannotBeUsed)
{
	serve("DNS:cache.example");
	settings_.ca_file = "/nowhere/ca.pem";
	EXPECT_NE(complaint().find("authorities"), std::string::npos);
	settings_.ca_file = trusted_.path();
	settings_.certificate_file = own_.path();
	EXPECT_NE(complaint().find("together"), std::string::npos);
	settings_.key = "no key";
	EXPECT_NE(complaint().find("could not be read"), std::string::npos);
	settings_.key = key_text(authority_key_.get());
	EXPECT_NE(complaint().find("does not belong"), std::string::npos);
	settings_.key = key_text(authority_key_.get(), "pass");
	EXPECT_NE(complaint().find("could not be read"), std::string::npos);
}

TEST_F(TlsTest, ShowsItsOwnCertificateWhenAsked)
{
	Owned<EVP_PKEY> key = make_key();
	Owned<X509> certificate =
	    make_certificate(key.get(), "DNS:client", authority_.get(), authority_key_.get());
	File file;

	file.add(certificate.get());
	settings_.certificate_file = file.path();
	settings_.key = key_text(key.get());
	serve("DNS:cache.example", true, true);
	EXPECT_EQ(complaint(), "");
	EXPECT_NE(SSL_get0_peer_certificate(server_.get()), nullptr);
}

TEST_F(TlsTest, RefusesAPeerThatSpeaksSomethingElse)
{
	Tls client(settings_);

	EXPECT_FALSE(client.shake_hands());
	client.received("-ERR unknown command\r\n$-1\r\n");
	EXPECT_THROW(client.shake_hands(), Error);
}

} /* namespace */
} /* namespace cache_ext::redis */
